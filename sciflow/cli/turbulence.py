"""The verbs of decaying turbulence: ``turbulence simulate``, ``fit`` and ``forecast``."""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from sciflow.cli.interrupt import Interrupted


def turbulence_simulate() -> type:
    """``sciflow turbulence simulate``."""

    @dataclass(frozen=True, kw_only=True)
    class Simulate:
        """Simulate decays in a periodic box; write their statistics to OUT.

        An .npz file keeps everything of all seeds; a .csv file the numbers of the first.
        """

        path_out: Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]
        """File to write, .npz or .csv."""
        n: int = 64
        """Points along each side."""
        nu: float = 0.02
        """Kinematic viscosity, length^2/time."""
        peak: float = 5.0
        """Wavenumber at which the energy spectrum of the start peaks, 1/length."""
        slope: float = 4.0
        """Power of the spectrum at small wavenumbers."""
        fall: Literal["gauss", "exp", "power"] = "gauss"
        """How the spectrum falls beyond its peak."""
        energy: float = 1.5
        """Kinetic energy per mass of the start, length^2/time^2."""
        taylor_green: bool = False
        """Start from the Taylor-Green vortex; spectrum and seeds do not matter then."""
        seeds: int = 1
        """Number of random starts."""
        tau_max: float = 3.5
        """Stop when the energy has fallen by the factor exp(-tau_max)."""
        t_max: float | None = None
        """Stop at this time, if it comes first."""
        box: float = 2 * math.pi
        """Side of the box, length."""
        device: str = "auto"
        """Torch device: "auto", "cpu", "cuda"."""
        dtype: Literal["float32", "float64"] = "float32"
        """Type of the fields."""

        def run(self) -> None:
            from sciflow import turbulence
            from sciflow.bridges.files import check_folder

            _suffix(self.path_out, ".npz", ".csv")
            check_folder(self.path_out.parent)
            spectrum = turbulence.PeakedSpectrum(
                peak=self.peak, slope=self.slope, fall=self.fall, k=self.energy
            )
            runs = turbulence.simulate(
                self.n, self.nu, "taylor-green" if self.taylor_green else spectrum, self.seeds,
                tau_max=self.tau_max, t_max=self.t_max, box=self.box, device=self.device,
                dtype=self.dtype, name=self.path_out.stem,
            )  # fmt: skip
            for run in runs:
                resolution = float(run.eta.min() * (run.k_max or math.nan))
                print(
                    f"{run.name}: t to {float(run.t[-1]):.4g}, Re_lambda "
                    f"{float(run.Re_lambda[0]):.3g} to {float(run.Re_lambda[-1]):.3g}, k_max eta "
                    f"from {resolution:.3g}, energy balance {run.balance:.1e}"
                )
            if self.path_out.suffix == ".csv":
                print(turbulence.write_csv(self.path_out, runs[0]))
            else:
                print(turbulence.write_runs(self.path_out, runs))

    return Simulate


def turbulence_fit() -> type:
    """``sciflow turbulence fit``."""
    from sciflow import turbulence

    @dataclass(frozen=True, kw_only=True)
    class Fit(turbulence.FitOptions):
        """Fit a forecaster to the decays of IN and write it to OUT.

        IN is an .npz file of decays, or "shipped" for those that come with sciflow.
        """

        path_in: Annotated[str, Positional, tyro.conf.arg(metavar="IN")]
        """Decays to learn from."""
        path_out: Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]
        """File to write, .safetensors."""

        def run(self) -> None:
            from sciflow.bridges.files import check_folder

            _suffix(self.path_out, ".safetensors")
            check_folder(self.path_out.parent)
            names = [f.name for f in dataclasses.fields(turbulence.FitOptions)]
            options = {name: getattr(self, name) for name in names}
            options["out"] = self.out or self.path_out.with_name(f"{self.path_out.stem}-run")
            if self.path_in == "shipped":
                runs = turbulence.decays("train", "closure")
                unseen = turbulence.decays("calibrate")
            else:
                runs, unseen = turbulence.read_runs(self.path_in), None
            forecaster = turbulence.fit(runs, unseen, **options)
            if forecaster.interrupted:
                raise Interrupted(
                    f"interrupted; the same command with --resume goes on in {options['out']}"
                )
            print(forecaster.save(self.path_out))

    return Fit


def turbulence_forecast() -> type:
    """``sciflow turbulence forecast``."""

    @dataclass(frozen=True, kw_only=True)
    class ForecastVerb:
        """Forecast k and eps with bands from the decay in IN; write them to OUT as csv.

        IN is a csv file whose first line names its columns: t, k, eps, and if they are known
        skewness and palinstrophy. The forecast starts at its last row; rows before it are used
        as a history where skewness is not known.
        """

        path_in: Annotated[Path, Positional, tyro.conf.arg(metavar="IN")]
        """File to read, .csv."""
        path_out: Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]
        """File to write, .csv."""
        nu: float
        """Kinematic viscosity, length^2/time."""
        until: float
        """Last time of the forecast."""
        points: int = 50
        """Number of times of the forecast."""
        box: float | None = None
        """Side of the periodic box; without it the turbulence is unconfined."""
        k_max: float | None = None
        """Largest resolved wavenumber; without it all scales are resolved."""
        model: Path | None = None
        """Forecaster of `sciflow turbulence fit`; without it the one that comes with sciflow."""
        allow_imbalance: bool = False
        """Take records whose -dk/dt and eps differ by more than 5 %."""

        def run(self) -> None:
            import numpy as np
            import torch

            from sciflow import turbulence
            from sciflow.bridges.files import check_folder

            _suffix(self.path_out, ".csv")
            check_folder(self.path_out.parent)
            if self.points < 2:
                raise ValueError(f"points must be at least 2; got {self.points}")
            check: Literal["ignore", "error"] = "ignore" if self.allow_imbalance else "error"
            run = turbulence.read_csv(self.path_in, self.nu, self.box, self.k_max, check)
            start = float(run.t[-1])
            if self.until <= start:
                raise ValueError(f"until must be after the last time {start:g}; got {self.until}")
            known: dict[str, Any] = {"box": self.box, "k_max": self.k_max}
            if run.skewness is not None and run.palinstrophy is not None:
                known |= {"skewness": run.skewness[-1], "palinstrophy": run.palinstrophy[-1]}
            elif float(run.tau[-1]) > 0.05:
                known["history"] = (run.t, run.k, run.eps)
            forecaster = (
                turbulence.pretrained() if self.model is None else turbulence.load(self.model)
            )
            t = np.linspace(start, self.until, self.points)
            with torch.no_grad():
                found = forecaster.forecast(run.k[-1], run.eps[-1], self.nu, t, **known)
            names = ("t", "k", "k_low", "k_high", "eps", "eps_low", "eps_high", "C2")
            rows = [getattr(found, name).numpy() for name in names]
            np.savetxt(
                self.path_out, np.stack(rows, 1), delimiter=",", header=",".join(names),
                comments="",
            )  # fmt: skip
            print(
                f"from {found.encoder}: at t = {self.until:g} k = {float(found.k[-1]):.4g} "
                f"({float(found.k_low[-1]):.4g} to {float(found.k_high[-1]):.4g}), eps = "
                f"{float(found.eps[-1]):.4g} ({float(found.eps_low[-1]):.4g} to "
                f"{float(found.eps_high[-1]):.4g})"
            )
            print(self.path_out)

    return ForecastVerb


def _suffix(path: Path, *suffixes: str) -> None:
    if path.suffix not in suffixes:
        raise ValueError(f"OUT must end in {' or '.join(suffixes)}; got {path}")
