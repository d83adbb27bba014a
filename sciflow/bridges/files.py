"""From files of cells to files of fitted cells: ``.h5ad``, ``.npz`` and ``.csv``.

Whatever can be wrong with the file to write is found before the training starts, and a file is
there whole or not at all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciflow.am import ActionPotential, load
from sciflow.bridges import fields
from sciflow.bridges.anndata import at_time
from sciflow.bridges.cell_table import (
    CellTable,
    as_json,
    csv_header,
    describe,
    move,
    write_csv,
    write_npz,
    write_whole,
)
from sciflow.bridges.genes import expression, layer_bytes
from sciflow.data import Cells, read_cells
from sciflow.errors import DataError, SciflowError, require
from sciflow.train import load_metadata
from sciflow.train.checkpoint import probe

if TYPE_CHECKING:
    from anndata import AnnData

_log = logging.getLogger(__name__)

SUFFIXES = (".h5ad", ".npz", ".csv")


@dataclass(frozen=True, eq=False)
class FitOutput:
    """Where a fit will be written; made by `reserve`, before the training.

    Attributes:
        cells: what is fitted.
        path: the file of cells.
        adata: of the input file what the output depends on, where both files are ``.h5ad``.
        whole: whether that is all of the file.
    """

    cells: Cells
    path: Path
    adata: AnnData | None = None
    whole: bool = False

    @property
    def model_path(self) -> Path:
        """The file of the model, beside that of the cells."""
        return self.path.with_suffix(".safetensors")

    @property
    def run_path(self) -> Path:
        """A folder for log and checkpoint, beside the file of cells."""
        return self.path.with_name(f"{self.path.stem}-run")

    def write(self, model: ActionPotential, config: Mapping[str, Any]) -> list[Path]:
        """Write the model first, since it cost most, then the cells; give both paths.

        Args:
            model: what was fitted to the cells.
            config: settings of the fit, as JSON values.

        Raises:
            SciflowError: a file cannot be written; none is left half written.
        """
        cells = self.cells
        extra = {
            "cells": {
                "suffix": cells.path.suffix.lower(),
                "time_key": cells.time_key,
                "rep": cells.rep,
                "features": cells.features,
            },
            "config": json.loads(as_json(config)),
        }
        write_whole(self.model_path, lambda path: model.save(path, extra=extra))
        if self.path.suffix.lower() == ".h5ad":
            adata = self.adata
            if adata is None:
                table = describe(model, cells.names, cells.features, cells.time, cells.x)
                adata = fields.new(table, None, cells.time_key, _rep(cells))
            fields.annotate(adata, cells, model, config, rep=_rep(cells))
            if self.adata is None or self.whole:
                write_whole(self.path, adata.write_h5ad)
            else:
                write_whole(self.path, lambda path: fields.write_into(adata, cells.path, path))
        else:
            table = describe(model, cells.names, cells.features, cells.time, cells.x)
            write_table(table, self.path)
        return [self.path, self.model_path]


def reserve(cells: Cells, path_out: str | Path) -> FitOutput:
    """Make sure that a fit of ``cells`` can be written to ``path_out``.

    Args:
        cells: as ``read_cells`` gave them; the file that they came from is not changed.
        path_out: ``.h5ad`` (the input with the fields of ``bridges.anndata.fit`` added, or a new
            AnnData where the input is none), ``.npz`` or ``.csv``. The model goes beside it, with
            the suffix ``.safetensors``.

    Raises:
        DataError: the path is the input, has another suffix, is a folder, or its folder cannot
            be written or has too little space.
        MissingPackageError: ``.h5ad`` without anndata installed.
    """
    path = Path(path_out)
    adata, whole = None, False
    size = 2**20 + _table_bytes(len(cells.x), cells.n_dims)
    check_out(cells.path, path, cells.features)
    if path.suffix.lower() == ".h5ad" and cells.path.suffix.lower() == ".h5ad":
        try:
            adata = fields.skeleton(cells.path, cells.rep)
            if adata is None:
                adata, whole = require("anndata", "cell").read_h5ad(cells.path), True
        except OSError as error:
            raise DataError(f"{cells.path}: not a readable h5ad file ({error})") from error
        size += cells.path.stat().st_size + layer_bytes(adata, cells.rep)
    elif path.suffix.lower() == ".h5ad" and len(set(cells.names)) < len(cells.names):
        _log.warning("%s: names of cells are not unique", cells.path)
    check_room(path, size)
    output = FitOutput(cells, path, adata, whole)
    if output.model_path.is_dir():
        raise DataError(f"{output.model_path} is a folder; the model would be written there")
    for file in (output.path, output.model_path):
        if file.exists():
            _log.warning("%s will be replaced", file)
    return output


def write_fit(
    cells: Cells, model: ActionPotential, path_out: str | Path, config: Mapping[str, Any]
) -> list[Path]:
    """Write fitted cells and their model; `reserve` and ``write`` in one, for a model at hand.

    Raises:
        SciflowError: as `reserve` and `FitOutput.write`.
    """
    return reserve(cells, path_out).write(model, config)


def predict_file(
    path_model: str | Path,
    path_in: str | Path,
    path_out: str | Path,
    start: float,
    stops: Sequence[float],
    n_steps: int | None = None,
    seed: int = 0,
    genes: Sequence[str] = (),
    **reading: Any,
) -> Path:
    """Move the cells of a file at the time ``start`` to other times, and write them.

    Args:
        path_model: what a fit wrote beside its cells.
        path_in: the cells.
        path_out: ``.h5ad`` (a new AnnData), ``.npz`` or ``.csv``.
        start: time of the cells to move.
        stops: times to move them to, before or after the start, in any order.
        n_steps: constant steps from one time to the next; None for adaptive steps.
        seed: seed of the noise, where the flow has some.
        genes: genes whose expression becomes ``X``; for ``.h5ad`` in and out.
        reading: arguments of ``read_cells``; where not given, those of the fit hold for a file of
            the same kind.

    Raises:
        DataError: a file cannot be used, or the features are not those of the fit.
        ValueError: a time is not finite, or the flow has noise and one lies before the start.
    """
    path = Path(path_out)
    fitted, known = load(path_model), load_metadata(path_model).extra.get("cells", {})
    same = known.get("suffix") == Path(path_in).suffix.lower()
    given = {key: value for key, value in reading.items() if value is not None}
    if same:
        given = {"time_key": known["time_key"], **given}
        if known["rep"] != "columns":  # of a csv file without a prefix asked for
            given = {"rep": known["rep"], **given}
    cells = read_cells(path_in, **{"n_dims": fitted.scale.dim, **given})
    if same and cells.rep == known["rep"] and cells.features != known["features"]:
        raise DataError(
            f"{path_in}: the features are {', '.join(cells.features)}, but the model was fitted "
            f"on {', '.join(known['features'])}"
        )
    check_out(cells.path, path, cells.features)
    rows = at_time(cells, start)
    source = None
    if genes:
        if {cells.path.suffix.lower(), path.suffix.lower()} != {".h5ad"}:
            raise DataError("genes are read from .h5ad and written to .h5ad: give such files")
        source = require("anndata", "cell").read_h5ad(cells.path, backed="r")
        expression(source, cells.x[:1], cells.rep, genes)  # refused before anything is moved
    check_room(path, 2**20 + len(stops) * _table_bytes(len(rows), cells.n_dims + len(genes)))
    names = [cells.names[row] for row in rows]
    table = move(fitted, names, cells.features, cells.x[rows], start, stops, n_steps, seed)
    if path.suffix.lower() == ".h5ad":
        adata = fields.new(table, names * len(stops), cells.time_key, _rep(cells))
        if source is not None:
            adata = fields.with_genes(adata, source, table.x, cells.rep, genes)
            source.file.close()
        write_whole(path, adata.write_h5ad)
    else:
        write_table(table, path)
    return path


def write_table(table: CellTable, path: Path) -> None:
    """Write a table of cells as the suffix of ``path`` says, ``.npz`` or ``.csv``.

    Raises:
        SciflowError: the file cannot be written.
    """
    writers: dict[str, Callable[[CellTable, Path], None]] = {".npz": write_npz, ".csv": write_csv}
    write_whole(path, lambda temporary: writers[path.suffix.lower()](table, temporary))


def check_out(path_in: Path, path_out: Path, features: Sequence[str]) -> None:
    """Refuse a file to write that is the input, a folder, or of an unknown kind.

    Raises:
        DataError: says which.
        MissingPackageError: ``.h5ad`` without anndata installed.
    """
    suffix = path_out.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path_out}: cannot write {suffix!r}; expected {', '.join(SUFFIXES)}")
    if path_out.is_dir():
        raise DataError(f"{path_out} is a folder; expected a file to write")
    if path_out.exists() and path_out.samefile(path_in):
        raise DataError(f"{path_out} is the input, which is never written to: give another file")
    if suffix == ".h5ad":
        require("anndata", "cell")
    if suffix == ".csv":
        csv_header(features)


def check_room(path: Path, size: int) -> None:
    """Make the folder of ``path`` and refuse it if ``size`` bytes cannot be written there.

    Raises:
        DataError: names the folder.
    """
    try:
        probe(path.parent, size)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error} (about {size / 1e6:.0f} MB needed)"
        ) from error


def check_folder(folder: Path) -> None:
    """Make a folder for results, and refuse one that cannot be written.

    Raises:
        SciflowError: names the folder.
    """
    try:
        probe(folder, 2**16)
    except OSError as error:
        raise SciflowError(f"cannot write to the folder {folder}: {error}") from error


def _rep(cells: Cells) -> str:
    """Entry of obsm for features that came from elsewhere."""
    if cells.path.suffix.lower() == ".h5ad" or cells.rep.startswith("X_"):
        return cells.rep
    components = cells.rep in ("pcs", "PC") or cells.features[0].upper() == "PC1"
    return "X_pca" if components else "X_features"


def _table_bytes(n: int, dim: int) -> int:
    """Bytes of a table in its largest form, csv."""
    return n * 25 * (2 * dim + 4)
