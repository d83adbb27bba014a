"""Measured figures beside their exact or published values, in one page that needs nothing else.

A recipe makes a ``Report`` and writes it to a folder: ``metrics.json``, the figures, and an
``index.html`` made from these two. ``read_reports`` finds what recipes wrote below a folder and
``write_index`` makes one page of them, so data flows one way: no number in a page is typed.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from sciflow.errors import DataError
from sciflow.templates import render

_FORMAT = 1
_MIME = {".png": "image/png", ".svg": "image/svg+xml"}
_DIRECTIONS = ("equal", "at most", "at least")


@dataclass(frozen=True)
class Entry:
    """One measured figure beside the value it is held against.

    Attributes:
        name: what was measured.
        value: the figure.
        reference: its exact or published value, or a bound.
        source: where the reference comes from: a formula, a paper with its table, a peer's run.
        tolerance: how far the value may be on the wrong side, in units of the value, or as a
            fraction of the reference where ``relative``.
        direction: whether the value should equal the reference, or be at most or at least that.
        relative: the tolerance is a fraction of the reference.
        unit: unit of value, reference and error.
        error: standard error of the value, or its deviation over seeds.
        seed: seed of the run.
        seconds: wall time of the run.

    Raises:
        ValueError: a number is not finite, the tolerance or error is negative, or a word is
            missing or unknown.
    """

    name: str
    value: float | int
    reference: float | int
    source: str
    tolerance: float | int
    direction: Literal["equal", "at most", "at least"] = "equal"
    relative: bool = False
    unit: str = ""
    error: float | int | None = None
    seed: int | None = None
    seconds: float | int | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.source:
            raise ValueError(
                f"name and source must not be empty, got {self.name!r} and its source"
            )
        if self.direction not in _DIRECTIONS:
            raise ValueError(f"direction must be one of {_DIRECTIONS}, got {self.direction!r}")
        for name in ("value", "reference", "tolerance", "error", "seconds"):
            number = getattr(self, name)
            if number is None and name in ("error", "seconds"):
                continue
            if not isinstance(number, Real):
                raise TypeError(f"{name} of {self.name!r} must be a number, got {number!r}")
            if not math.isfinite(number):
                raise ValueError(f"{name} of {self.name!r} must be finite, got {number}")
            if number < 0 and name in ("tolerance", "error", "seconds"):
                raise ValueError(f"{name} of {self.name!r} must not be negative, got {number}")
            # numpy's and Python's numbers alike are written as plain JSON.
            object.__setattr__(self, name, float(number))

    @property
    def margin(self) -> float:
        """Largest deviation allowed, in units of the value."""
        return self.tolerance * abs(self.reference) if self.relative else float(self.tolerance)

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """What value, reference, tolerance and direction say."""
        excess = self.value - self.reference
        if self.direction == "equal":
            excess = abs(excess)
        elif self.direction == "at least":
            excess = -excess
        return "pass" if excess <= self.margin else "fail"


@dataclass(frozen=True)
class Figure:
    """A picture with the words that stand for it.

    Attributes:
        path: a PNG or SVG file.
        alt: what the picture shows, for those who cannot see it.
        caption: printed below.

    Raises:
        ValueError: the file has another format, or ``alt`` is empty.
    """

    path: Path
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if self.path.suffix not in _MIME:
            raise ValueError(f"path must end in {' or '.join(_MIME)}, got {self.path.name!r}")
        if not self.alt.strip():
            raise ValueError(f"alt must say what {self.path.name!r} shows")

    @classmethod
    def save(
        cls, figure: Any, folder: Path, name: str, alt: str, caption: str = "", dpi: int = 160
    ) -> Figure:
        """Write a matplotlib figure to ``figures / name`` in ``folder``, that of the report."""
        made = cls(folder / "figures" / name, alt, caption)
        made.path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(made.path, dpi=dpi, facecolor="white")
        return made

    @property
    def data_uri(self) -> str:
        """The file itself, as the address of an image."""
        return (
            f"data:{_MIME[self.path.suffix]};base64,{b64encode(self.path.read_bytes()).decode()}"
        )


@dataclass(frozen=True)
class Section:
    """Figures that belong together.

    Attributes:
        title: heading.
        text: paragraphs, separated by an empty line.
        entries: measured figures.
        figures: pictures.
        command: shell command that runs the full version of this part.
    """

    title: str
    text: str = ""
    entries: tuple[Entry, ...] = ()
    figures: tuple[Figure, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Environment:
    """With what, and when, a report was measured; ``date`` is UTC in ISO 8601."""

    date: str
    sciflow: str
    torch: str
    numpy: str
    python: str
    machine: str

    @classmethod
    def current(cls) -> Environment:
        """The environment of this process, now."""
        import numpy
        import torch

        import sciflow

        return cls(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            sciflow=sciflow.__version__,
            torch=str(torch.__version__),
            numpy=numpy.__version__,
            python=platform.python_version(),
            machine=f"{platform.machine()}, CPU threads: {torch.get_num_threads()}",
        )


@dataclass(frozen=True)
class Report:
    """What one recipe measured.

    Attributes:
        title: heading of the page.
        sections: parts of the page.
        command: shell command that runs the full version.
        environment: versions, date and machine; of this process where not given.
    """

    title: str
    sections: tuple[Section, ...]
    command: str = ""
    environment: Environment = field(default_factory=Environment.current)

    def save_json(self, folder: Path | str) -> Path:
        """Write ``metrics.json`` and return its path; figures from elsewhere are copied beside it.

        Raises:
            ValueError: two figures would become one file.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT} | asdict(self)
        kept: dict[Path, Path] = {}
        for section, written in zip(self.sections, content["sections"], strict=True):
            for entry, row in zip(section.entries, written["entries"], strict=True):
                row["verdict"] = entry.verdict
            for figure, row in zip(section.figures, written["figures"], strict=True):
                row["path"] = _keep(figure.path, folder, kept)
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        return folder / "metrics.json"

    def write(self, folder: Path | str) -> Path:
        """Write ``metrics.json`` and a self-contained ``index.html``; return the latter's path."""
        self.save_json(folder)
        return write_index([self], folder, self.title)


def read_report(path: Path | str) -> Report:
    """Read a ``metrics.json``. Verdicts are computed anew, not read.

    Raises:
        DataError: the file is not what ``Report.save_json`` writes.
        FileNotFoundError: the file or one of its figures is missing.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise DataError(f"{path} has format {content['format']}, expected {_FORMAT}")
        sections = tuple(_section(section, path.parent) for section in content["sections"])
        made_with = Environment(**content["environment"])
        return Report(content["title"], sections, content["command"], made_with)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is not a report of sciflow: {error!r}") from error


def read_reports(folder: Path | str) -> list[Report]:
    """Read every ``metrics.json`` in and below ``folder``, in order of their paths.

    Raises:
        DataError: there is none, or one is not a report.
    """
    folder = Path(folder)
    paths = sorted(folder.rglob("metrics.json"), key=lambda path: path.parent.parts)
    if not paths:
        raise DataError(f"folder {str(folder)!r} holds no metrics.json")
    return [read_report(path) for path in paths]


def write_index(reports: Sequence[Report], folder: Path | str, title: str | None = None) -> Path:
    """Make one self-contained ``index.html`` of reports in ``folder``, and return its path.

    The page asks nothing of any server; its heading is ``title`` or that of the first report.

    Raises:
        ValueError: there are no reports.
    """
    if not reports:
        raise ValueError("reports must not be empty")
    sections = [section for report in reports for section in report.sections]
    entries = [entry for section in sections for entry in section.entries]
    page = render(
        "report.html.j2",
        title=title or reports[0].title,
        reports=reports,
        total=len(entries),
        passed=sum(entry.verdict == "pass" for entry in entries),
    )
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _section(content: dict[str, Any], folder: Path) -> Section:
    """Section from its JSON; the verdicts written there are for other readers."""
    entries = [{k: v for k, v in e.items() if k != "verdict"} for e in content["entries"]]
    figures = [Figure(**(f | {"path": folder / f["path"]})) for f in content["figures"]]
    for figure in figures:
        if not figure.path.is_file():
            raise FileNotFoundError(f"figure {figure.path} is missing")
    parts = {"entries": tuple(Entry(**e) for e in entries), "figures": tuple(figures)}
    return Section(**(content | parts))


def _keep(path: Path, folder: Path, kept: dict[Path, Path]) -> str:
    """Path relative to ``folder`` of a figure, copied there where it lies elsewhere."""
    path, folder = path.resolve(), folder.resolve()
    target = path if path.is_relative_to(folder) else folder / "figures" / path.name
    if kept.setdefault(target, path) != path:
        raise ValueError(f"figures must differ in name, got {path} and {kept[target]}")
    if target != path:
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    return target.relative_to(folder).as_posix()
