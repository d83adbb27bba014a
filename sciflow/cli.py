"""The command line: ``sciflow <door> <verb>``, each verb the dataclass of its Python recipe.

A verb is one function below that imports its door and returns a dataclass with ``run``, and one
line in ``VERBS``. tyro makes the options, their defaults and their help of the fields and the
docstrings under them, so that nothing is described twice.
"""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
import contextlib
import dataclasses
import io
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from tyro.conf import Positional, Suppress

from sciflow.errors import SciflowError

In = Annotated[Path, Positional, tyro.conf.arg(metavar="IN")]
Out = Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]


class Interrupted(Exception):
    """Ctrl-C ended a run; the message says where it goes on from."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How cells are read from IN."""

    time_key: str | None = None
    """Column of obs (h5ad), key (npz) or column (csv) of the times, in your unit of time; None
    takes the one called time, day, t, samples ..."""
    rep: str | None = None
    """Features: entry of obsm (h5ad; None takes X_pca), key (npz; None takes X_pca, pcs, X or x)
    or prefix of columns (csv; None takes x1.. or PC1.., else all numbers)."""
    n_dims: int | None = None
    """Use the first features only; None uses all."""
    times: dict[str, float] = field(default_factory=dict)
    """Times of labels that are not numbers: --times "Day 00-03" 1.5 "Day 06-09" 7.5."""

    def reading(self) -> dict[str, Any]:
        """Arguments of ``read_cells``."""
        names = ("time_key", "rep", "n_dims", "mass_key")
        given = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return given | {"times": self.times or None}


@dataclass(frozen=True, kw_only=True)
class Fitting(Reading):
    """What is fitted, and where the result goes."""

    path_in: In
    """Cells at several times: .h5ad, .npz or .csv."""
    path_out: Out
    """File to write: .h5ad, .npz or .csv; never IN."""
    hold_out: str | None = None
    """Time points that the fit must not see, in order of time from 0: 1 or 1,3."""


def _am_fit() -> type:
    from sciflow import am

    @dataclass(frozen=True, kw_only=True)
    class Fit(am.FitOptions, Fitting):
        """Fit a deterministic flow to the cells of IN by action matching; write them to OUT.

        OUT (.h5ad, .npz or .csv) gets velocity, potential and growth rate of each cell at its own
        time, and the model lies beside it with the suffix .safetensors.
        """

        out: Path | None = None
        """Folder for log and checkpoints; None takes OUT-run, beside OUT."""

        def run(self) -> None:
            _fit(self, "am", am.FitOptions, am.fit)

    return Fit


def _wlf_fit() -> type:
    from sciflow import wlf

    lagrangians = f"What the flow minimises: {', '.join(wlf.LAGRANGIANS)}."

    @dataclass(frozen=True, kw_only=True)
    class Fit(wlf.FitOptions, Fitting):
        """Fit a flow of least action through the cells of IN, and write them to OUT.

        OUT (.h5ad, .npz or .csv) gets velocity, potential and growth rate of each cell at its own
        time, and the model lies beside it with the suffix .safetensors. In .h5ad the velocity is
        obsm["velocity_pca"] and layers["velocity"], where scVelo looks for it.
        """

        lagrangian: Annotated[str, tyro.conf.arg(help=lagrangians)] = "ot"
        mass_key: str | None = None
        """Weight of each cell, or mass at each time (column or key); None knows no masses."""
        out: Path | None = None
        """Folder for log and checkpoints; None takes OUT-run, beside OUT."""

        def run(self) -> None:
            _fit(self, "wlf", wlf.FitOptions, wlf.fit, lagrangian=self.lagrangian)

    return Fit


def _fit(verb: Any, door: str, options: type, fit: Callable[..., Any], **chosen: str) -> None:
    """Read, reserve, fit, write: the same for each door that fits cells."""
    from sciflow.bridges.files import reserve
    from sciflow.data import read_cells

    held = [] if verb.hold_out is None else _time_points(verb.hold_out)
    settings = _options_of(verb, options)
    cells = read_cells(verb.path_in, **verb.reading())
    output = reserve(cells, verb.path_out)
    settings["out"] = verb.out or output.run_path
    checkpoint = settings["out"] / "checkpoint.pt"
    try:
        model = fit(cells.snapshots(), hold_out=held, **chosen, **settings)
    except KeyboardInterrupt:
        raise _interrupted(checkpoint) from None
    if not model.history.step or model.history.step[-1] < verb.steps:
        # The trainer takes Ctrl-C as the end of the training: what it returns is not the fit.
        raise _interrupted(checkpoint)
    config = {"door": door, **chosen, "hold_out": held, "times": verb.times or None}
    for path in output.write(model, config | settings | {"out": str(settings["out"])}):
        print(path)


def _interrupted(checkpoint: Path) -> Interrupted:
    if not checkpoint.is_file():
        return Interrupted("interrupted before the training; nothing was written")
    return Interrupted(f"interrupted; the same command with --resume goes on from {checkpoint}")


def _wlf_predict() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Predict(Reading):
        """Move the cells of IN at one time to other times, and write them to OUT.

        Unless told otherwise, a file of the same kind as that of the fit is read as it was.
        """

        model: Annotated[Path, Positional, tyro.conf.arg(metavar="MODEL")]
        """The .safetensors file that a fit wrote."""
        path_in: In
        """Cells: .h5ad, .npz or .csv, with the features of the fit."""
        path_out: Out
        """File to write: .h5ad (a new AnnData), .npz or .csv; never IN."""
        start: Annotated[float, tyro.conf.arg(name="from", metavar="T0")]
        """Time of the cells to move, in the unit of time of the fit."""
        to: Annotated[tuple[float, ...], tyro.conf.arg(metavar="T1 [T2 ...]")]
        """Time to move them to, or several in order, all later or all earlier than T0."""
        n_steps: int | None = None
        """Constant Runge-Kutta steps from one time to the next; None chooses steps by their
        error."""

        def run(self) -> None:
            from sciflow.bridges.files import predict_file

            files = (self.model, self.path_in, self.path_out)
            print(predict_file(*files, self.start, self.to, self.n_steps, **self.reading()))

    return Predict


def _wlf_evaluate() -> type:
    from sciflow import wlf

    lagrangians = f"What the flow minimises: {', '.join(wlf.LAGRANGIANS)}."

    @dataclass(frozen=True, kw_only=True)
    class Evaluate(wlf.FitOptions, Reading):
        """Leave out one time point at a time, predict it, and score the prediction.

        Prints the distances to the held-out cells beside those of simple baselines and of a
        perfect prediction, and writes scores.csv and scores.json.
        """

        path_in: In
        """Cells at three or more times: .h5ad, .npz or .csv."""
        lagrangian: Annotated[str, tyro.conf.arg(help=lagrangians)] = "ot"
        mass_key: str | None = None
        """Weight of each cell, or mass at each time (column or key); None knows no masses."""
        hold_out: str = "each"
        """Time points to leave out, one after the other, in order of time from 0: "each" (of the
        interior ones), 1 or 1,3."""
        seeds: int = 3
        """Number of fits for each time point, with the seeds 0, 1, ..."""
        whiten: bool = True
        """Scale each feature to unit variance over the other time points; scores are in these
        units."""
        out: Path | None = None
        """Folder for the scores; None takes runs/evaluate-IN, with the name of the file IN."""
        seed: Suppress[int] = 0
        log: Suppress[str | None] = None
        resume: Suppress[bool] = False

        def run(self) -> None:
            from sciflow.bridges.files import check_folder
            from sciflow.data import read_cells

            if self.seeds < 1:
                raise ValueError(f"--seeds must be at least 1; got {self.seeds}")
            held: Literal["each"] | list[int] = (
                "each" if self.hold_out == "each" else _time_points(self.hold_out)
            )
            snapshots = read_cells(self.path_in, **self.reading()).snapshots()
            folder = self.out or Path("runs", f"evaluate-{self.path_in.stem}")
            check_folder(folder)
            options = _options_of(self, wlf.FitOptions) | {"out": None}
            with _stop_at_once():
                result = wlf.evaluate(
                    snapshots,
                    held,
                    seeds=tuple(range(self.seeds)),
                    whiten=self.whiten,
                    lagrangian=self.lagrangian,
                    **options,
                )
            print(result.table())
            for path in result.save(folder):
                print(path)

    return Evaluate


def _data_list() -> type:
    @dataclass(frozen=True, kw_only=True)
    class List:
        """List the named data sets, and where each is on this machine."""

        def run(self) -> None:
            from sciflow.data import listing

            rows = listing()
            width = max(len(row.name) for row in rows)
            for row in rows:
                size = "" if row.size is None else f"{row.size / 1e6:.1f} MB"
                by_hand = "" if row.downloadable else " Not downloadable: put it in by hand."
                print(f"{row.name:<{width}}  {row.where:<11}  {size:>10}  {row.licence}")
                print(f"{'':<{width}}  {row.description}{by_hand}")

    return List


def _data_fetch() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Fetch:
        """Download named data sets where they are not on this machine, and print their files."""

        names: Annotated[tuple[str, ...], Positional, tyro.conf.arg(metavar="NAME [NAME ...]")]
        """Names, as `sciflow data list` gives them."""

        def run(self) -> None:
            from sciflow.data import fetch

            if not self.names:
                raise ValueError("give the name of a data set: sciflow data list shows them")
            for path in fetch(self.names):
                print(path)

    return Fetch


def _data_path() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Where:
        """Print the checked file of a data set that is on this machine; downloads nothing."""

        name: Annotated[str, Positional, tyro.conf.arg(metavar="NAME")]
        """Name, as `sciflow data list` gives it."""

        def run(self) -> None:
            from sciflow.data import path

            print(path(self.name, download=False))

    return Where


def _report() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Collect:
        """Make one index.html of all reports (metrics.json) in and below FOLDER."""

        folder: Annotated[Path, Positional, tyro.conf.arg(metavar="FOLDER")]
        """Folder that recipes wrote to; the page goes there."""

        def run(self) -> None:
            from sciflow.report import read_reports, write_index

            if not self.folder.is_dir():
                raise FileNotFoundError(f"there is no folder {self.folder}")
            print(write_index(read_reports(self.folder), self.folder))

    return Collect


def _demo() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Demo:
        """Run small versions of what sciflow does, each beside its exact or published value."""

        out: Path = Path("out")
        """Folder for index.html, figures and numbers."""

        def run(self) -> None:
            from sciflow.bridges.files import check_folder
            from sciflow.demo import run

            check_folder(self.out)
            with _stop_at_once():
                print(run(self.out))

    return Demo


class Verb(NamedTuple):
    """What it does, in a line, and the function that imports it."""

    summary: str
    load: Callable[[], type]


VERBS: dict[str, Verb] = {
    "demo": Verb("run small versions of what sciflow does", _demo),
    "am fit": Verb("fit a deterministic flow to cells by action matching", _am_fit),
    "wlf fit": Verb("fit a flow of least action through cells at several times", _wlf_fit),
    "wlf predict": Verb("move cells to other times with a fitted model", _wlf_predict),
    "wlf evaluate": Verb("score predictions of held-out times", _wlf_evaluate),
    "data list": Verb("list the named data sets", _data_list),
    "data fetch": Verb("download named data sets", _data_fetch),
    "data path": Verb("print the file of a data set", _data_path),
    "report": Verb("make one page of the reports in a folder", _report),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: 0, 2 for a user's error, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("SCIFLOW_DEBUG", "") not in ("", "0")
    if "--debug" in words:
        words.remove("--debug")
        debug = True
    try:
        with _notices():
            name, rest = _split(words)
            if name is None:
                return 0
            command = _parse(name, rest)
            command.run()
    except (KeyboardInterrupt, Interrupted) as stop:
        return _fail(str(stop) or "interrupted", 130)
    except _HelpShown:
        return 0
    except BrokenPipeError:  # as in `sciflow data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SciflowError, ValueError, OSError) as error:
        if debug:
            traceback.print_exc()
        return _fail(f"error: {error}", 2)
    return 0


class _HelpShown(Exception):
    """tyro printed the help of a verb."""


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """The verb and its arguments; None where help or version was asked for, and was printed."""
    if words[:1] == ["--version"]:
        from sciflow import __version__

        print(f"sciflow {__version__}")
        return None, []
    for n in (1, 2):
        if (name := " ".join(words[:n])) in VERBS:
            return name, words[n:]
    door = words[0] if words else ""
    known = [name for name in VERBS if name.split()[0] == door]
    if words and door not in ("-h", "--help") and not known:
        doors = ", ".join(dict.fromkeys(name.split()[0] for name in VERBS))
        raise ValueError(f"there is no command {door!r}; known are {doors}")
    if known and len(words) > 1 and words[1] not in ("-h", "--help"):
        verbs = ", ".join(name.split()[1] for name in known)
        raise ValueError(f"{door} has no verb {words[1]!r}; known are {verbs}")
    print("usage: sciflow <command> [OPTIONS]\n")
    for name in known or VERBS:
        print(f"  sciflow {name:<14} {VERBS[name].summary}")
    print("\nsciflow <command> --help shows the options of a command, with units and defaults;")
    print("--version shows the version, --debug the traceback of an error.")
    return None, []


def _parse(name: str, words: list[str]) -> Any:
    """The dataclass of a verb, filled from the command line."""
    verb, prog = VERBS[name].load(), f"sciflow {name}"
    if {"-h", "--help"} & set(words):
        with contextlib.suppress(SystemExit):
            tyro.cli(verb, prog=prog, args=words)
        raise _HelpShown
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _wide():
            return tyro.cli(verb, prog=prog, args=words)
    except SystemExit:
        raise ValueError(f"{_one_line(said.getvalue())} (see {prog} --help)") from None


def _one_line(box: str) -> str:
    """The message in the box that tyro draws, with lines or in ASCII."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    parts = [""]
    for line in text.splitlines()[1:]:  # the first line is the upper edge
        words = line.strip(" │|")
        if words.startswith("For full helptext"):
            break
        if words.strip("─╰╯-+"):
            parts[-1] += f" {words}"
        elif parts[-1]:  # a rule between two parts
            parts.append("")
    return "; ".join(part.strip() for part in parts if part)


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """Let no message be broken into lines."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


@contextlib.contextmanager
def _notices() -> Iterator[None]:
    """Show what the library logs on stderr, a line each."""
    logger, handler = logging.getLogger("sciflow"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("sciflow: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextlib.contextmanager
def _stop_at_once() -> Iterator[None]:
    """Ctrl-C ends everything, not just the fit under way of several."""

    def stop(*_: Any) -> None:
        raise Interrupted("interrupted; nothing was written")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _fail(message: str, status: int) -> int:
    print(f"sciflow: {' '.join(message.split())}", file=sys.stderr)
    return status


def _options_of(verb: Any, options: type) -> dict[str, Any]:
    """The fields of a recipe's options, as set on the command line.

    Raises:
        ValueError: this machine has no such device.
    """
    import torch

    if verb.device != "auto":
        try:
            torch.empty(0, device=verb.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"--device {verb.device} cannot be used: {reason}") from error
    return {f.name: getattr(verb, f.name) for f in dataclasses.fields(options)}


def _time_points(text: str) -> list[int]:
    """Indices from ``1,2``.

    Raises:
        ValueError: something else.
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--hold-out counts time points from 0, as in 1 or 1,3; got {text!r}"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
