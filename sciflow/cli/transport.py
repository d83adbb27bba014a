"""The verbs of the transport doors, ``am`` and ``wlf``, and how they read cells."""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, Suppress

from sciflow.cli.interrupt import Interrupted, stop_at_once

In = Annotated[Path, Positional, tyro.conf.arg(metavar="IN")]
Out = Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]


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


def am_fit() -> type:
    """``sciflow am fit``."""
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


def wlf_fit() -> type:
    """``sciflow wlf fit``."""
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


def wlf_predict() -> type:
    """``sciflow wlf predict``."""

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


def wlf_evaluate() -> type:
    """``sciflow wlf evaluate``."""
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
            options = _options_of(self, wlf.FitOptions) | {"out": None}
            snapshots = read_cells(self.path_in, **self.reading()).snapshots()
            folder = self.out or Path("runs", f"evaluate-{self.path_in.stem}")
            check_folder(folder)
            with stop_at_once():
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


def _options_of(verb: Any, options: type) -> dict[str, Any]:
    """The fields of a recipe's options, as set on the command line.

    Raises:
        ValueError: this machine has no such device.
    """
    from sciflow.train import Engine

    Engine.start(verb.device)  # the training asks too, but only after reading and coupling
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
