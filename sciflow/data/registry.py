"""Find, download and check the named data sets.

A file is looked for in the folder that ``SCIFLOW_DATA`` names, then in the cache (the folder that
``SCIFLOW_CACHE`` names, or the user's cache folder), and is downloaded to the cache last. What
`path` returns has been checked against its sha256. Files that are already there are never
changed or removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sciflow.data.datasets import DATASETS, Dataset
from sciflow.errors import DataError, require

__all__ = ["DATASETS", "Dataset", "DatasetStatus", "fetch", "find", "listing", "path"]

Place = Literal["data folder", "cache", "not here"]


@dataclass(frozen=True)
class DatasetStatus:
    """Where a data set is on this machine.

    Attributes:
        name: its name.
        where: ``"data folder"`` (``SCIFLOW_DATA``), ``"cache"`` or ``"not here"``.
        path: the file found; None where it is not here. It has not been checked yet.
        size: bytes, of the file found, else as its source states it; None where unknown.
        licence: terms of the file.
        downloadable: False where it has to be put in place by hand.
        description: what it holds.
    """

    name: str
    where: Place
    path: Path | None
    size: int | None
    licence: str
    downloadable: bool
    description: str


def find(name: str) -> Path | None:
    """The file of a data set where it is on this machine already, or None. It is not checked.

    Raises:
        DataError: the name is unknown, or ``SCIFLOW_DATA`` does not name a folder.
    """
    return _locate(_dataset(name))[1]


def path(name: str, download: bool = True) -> Path:
    """The file of a data set, downloaded where needed, its sha256 checked.

    Args:
        name: a key of ``DATASETS``.
        download: False to look on this machine only.

    Raises:
        DataError: the name is unknown; the file is not here and cannot be downloaded; or its
            hash is not that of the data set. A file that was there is left as it is.
    """
    dataset = _dataset(name)
    file = _locate(dataset)[1]
    if file is None:
        if not download or dataset.url is None:
            raise DataError(f"{dataset.name!r} is not on this machine; {_by_hand(dataset)}")
        return _download(dataset, dataset.url)
    found = _sha256(file, file.stat().st_size, file.stat().st_mtime_ns)
    if found != dataset.sha256:
        raise DataError(
            f"{file} is not the data set {dataset.name!r}: expected sha256 {dataset.sha256}, "
            f"found {found}. The file was left as it is: move it away to have it fetched again"
        )
    return file


def fetch(names: str | Iterable[str]) -> list[Path]:
    """Have the named data sets on this machine, and give their files in the same order.

    Raises:
        DataError: as for `path`. All names are looked at before the first download starts.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        _dataset(name)
    return [path(name) for name in wanted]


def listing() -> list[DatasetStatus]:
    """All data sets and where each is on this machine; nothing is downloaded or hashed.

    Raises:
        DataError: ``SCIFLOW_DATA`` does not name a folder.
    """
    rows = []
    for dataset in DATASETS.values():
        where, file = _locate(dataset)
        rows.append(
            DatasetStatus(
                name=dataset.name,
                where=where,
                path=file,
                size=dataset.size if file is None else file.stat().st_size,
                licence=dataset.licence,
                downloadable=dataset.url is not None,
                description=dataset.description,
            )
        )
    return rows


def _dataset(name: str) -> Dataset:
    if name in DATASETS:
        return DATASETS[name]
    close = get_close_matches(name, DATASETS, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise DataError(f"unknown data set {name!r}: {hint}known are {', '.join(DATASETS)}")


def _locate(dataset: Dataset) -> tuple[Place, Path | None]:
    folder = os.environ.get("SCIFLOW_DATA")
    if folder:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise DataError(f"SCIFLOW_DATA is {folder!r}, which is not a folder")
        for file in (root / dataset.filename, root / dataset.basename):
            if file.is_file():
                return "data folder", file
    file = _cache() / dataset.basename
    return ("cache", file) if file.is_file() else ("not here", None)


def _cache() -> Path:
    folder = os.environ.get("SCIFLOW_CACHE")
    return Path(folder).expanduser() if folder else Path(require("pooch").os_cache("sciflow"))


@lru_cache(maxsize=64)
def _sha256(file: Path, size: int, modified: int) -> str:
    """Hash of a file; size and time of change are the key, so a GB is read once a process."""
    return require("pooch").file_hash(str(file), alg="sha256")


def _download(dataset: Dataset, url: str) -> Path:
    # pooch writes to a temporary file beside the target and moves it only after the hash
    # matched, so neither an interrupt nor a broken connection leaves anything in the cache.
    pooch = require("pooch")
    tqdm = require("tqdm.auto").tqdm
    cache = _cache()
    # pooch asks for the truth of the bar, which tqdm refuses while the total is unknown.
    total = dataset.size or 1
    bar = tqdm(desc=dataset.name, total=total, unit="B", unit_scale=True, disable=None)
    options = {"headers": dict(dataset.headers)} if dataset.headers else {}
    try:
        file = pooch.retrieve(
            url=url,
            known_hash=f"sha256:{dataset.sha256}",
            fname=dataset.basename,
            path=cache,
            downloader=pooch.HTTPDownloader(progressbar=bar, **options),
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{dataset.name!r} could not be downloaded: {error}. Nothing was kept; "
            f"{_by_hand(dataset)}"
        ) from error
    finally:
        bar.close()
    return Path(file)


def _by_hand(dataset: Dataset) -> str:
    """How to put the file in place without us."""
    place = f"as {dataset.filename} (or {dataset.basename}) in the folder that SCIFLOW_DATA names"
    if dataset.url is None:
        return f"it has no download address: put it {place}. Source: {dataset.citation}"
    return f"get it from {dataset.url} and put it {place}, or as {_cache() / dataset.basename}"
