"""The verbs of the transport doors, ``am`` and ``wlf``, and how they read cells."""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, Suppress

from sciflow.cli.interrupt import Interrupted, stop_at_once

if TYPE_CHECKING:
    from sciflow.data import Cells
    from sciflow.train import Snapshots

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
        if given.get("mass_key") == "counts":
            given["mass_key"] = None
        return given | {"times": self.times or None}

    def snapshots(self, cells: "Cells") -> "Snapshots":
        """Snapshots of the cells, with the masses that were asked for."""
        counts = getattr(self, "mass_key", None) == "counts"
        return cells.snapshots("counts" if counts else "file")


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
        """Fit the flow of the cells of IN by action matching, and write them to OUT.

        OUT (.h5ad, .npz or .csv) gets velocity, potential and growth rate of each cell at its own
        time, and the model lies beside it with the suffix .safetensors.

        Example: sciflow am fit cells.h5ad fitted.h5ad --time-key day --n-dims 10

        With noise: sciflow am fit cells.csv fitted.csv --kind entropic --sigma 0.5
        """

        kind: Literal["deterministic", "entropic", "unbalanced", "entropic+unbalanced"] = (
            "deterministic"
        )
        """Whether cells move with noise ("entropic"), and whether they multiply and die
        ("unbalanced")."""
        mass_key: str | None = None
        """Masses, where cells multiply and die: "counts" takes the number of cells at each time; a
        column or key with the weight of each cell, or the mass at each time; None knows none."""
        out: Path | None = None
        """Folder for log and checkpoints; None takes OUT-run, beside OUT."""

        def run(self) -> None:
            _fit(self, "am", am.FitOptions, am.fit, kind=self.kind)

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

        Example: sciflow wlf fit cells.h5ad fitted.h5ad --time-key day --n-dims 10

        With growth: sciflow wlf fit cells.h5ad fitted.h5ad --lagrangian uot --mass-key counts
        """

        lagrangian: Annotated[str, tyro.conf.arg(help=lagrangians)] = "ot"
        mass_key: str | None = None
        """Masses, where cells multiply and die: "counts" takes the number of cells at each time; a
        column or key with the weight of each cell, or the mass at each time; None knows none."""
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

        Unless told otherwise, a file of the same kind as that of the fit is read as it was. Where
        mass grows, the moved cells have log-weights.

        Example: sciflow wlf predict fitted.safetensors cells.h5ad later.h5ad --from 3 --to 6 9

        With genes: ... --genes SOX2 NANOG
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
        """Time to move them to, or several, before or after T0."""
        genes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="GENE [GENE ...]")] = ()
        """Genes whose expression the moved cells shall have, through the loadings of the PCA; from
        .h5ad to .h5ad."""
        n_steps: int | None = None
        """Constant steps from one time to the next; None chooses steps by their error, or 256
        over the duration of the fit where the flow has noise."""
        seed: int = 0
        """Seed of the noise, where the flow has some."""

        def run(self) -> None:
            from sciflow.bridges.files import predict_file

            path = predict_file(
                self.model,
                self.path_in,
                self.path_out,
                self.start,
                self.to,
                genes=self.genes,
                n_steps=self.n_steps,
                seed=self.seed,
                **self.reading(),
            )
            print(path)

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

        Example: sciflow wlf evaluate cells.h5ad --time-key day --n-dims 5 --seeds 5
        """

        path_in: In
        """Cells at three or more times: .h5ad, .npz or .csv."""
        lagrangian: Annotated[str, tyro.conf.arg(help=lagrangians)] = "ot"
        mass_key: str | None = None
        """Masses, where cells multiply and die: "counts" takes the number of cells at each time; a
        column or key with the weight of each cell, or the mass at each time; None knows none."""
        hold_out: str = "each"
        """Time points to leave out, one after the other, in order of time from 0: "each" (of the
        interior ones), 1 or 1,3; or all "pairs" of them together."""
        seeds: int = 3
        """Number of fits for each time point, with the seeds 0, 1, ..."""
        whiten: bool = True
        """Scale each feature to unit variance over the other time points; scores are in these
        units, and so are sigma and the growth penalty."""
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
            held: Any = self.hold_out
            if held not in ("each", "pairs"):
                held = _time_points(held)
            options = _options_of(self, wlf.FitOptions) | {"out": None}
            snapshots = self.snapshots(read_cells(self.path_in, **self.reading()))
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
        model = fit(verb.snapshots(cells), hold_out=held, **chosen, **settings)
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
