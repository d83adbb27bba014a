"""Decaying turbulence: simulate a field, forecast its energy and dissipation, compare.

Launch:
    python examples/turbulence_forecast.py --out runs/turbulence   # on the GPU where there is one
    CUDA_VISIBLE_DEVICES= python examples/turbulence_forecast.py   # on the CPU
    torchrun --nproc_per_node=2 examples/turbulence_forecast.py    # the box in two slabs
    python examples/turbulence_forecast.py --points 96 --nu 0.012  # a larger Reynolds number
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from sciflow import plots, turbulence
from sciflow.train import Engine
from sciflow.turbulence.baselines import k_epsilon, relative_l2


@dataclass
class Study:
    """Settings of the study."""

    points: int = 48
    """Points along each side of the box."""
    nu: float = 0.045
    """Kinematic viscosity."""
    peak: float = 3.7
    """Wavenumber at which the spectrum of the start peaks."""
    tau: float = 2.5
    """Fall of ln k of the simulation."""
    seed: int = 11
    """Seed of the start."""
    out: Path = Path("runs/turbulence")
    """Folder that is written."""


def main(study: Study) -> None:
    spectrum = turbulence.PeakedSpectrum(peak=study.peak)
    (run,) = turbulence.simulate(
        study.points, study.nu, spectrum, [study.seed], tau_max=study.tau, name="simulation"
    )
    if not Engine.start().is_main:
        return
    known = {
        "skewness": run.skewness[0],
        "palinstrophy": run.palinstrophy[0],
        "spectrum": (run.kappa, run.spectrum[0]),
        "box": run.box,
        "k_max": run.k_max,
    }
    with torch.no_grad():
        forecast = turbulence.pretrained().forecast(run.k[0], run.eps[0], run.nu, run.t, **known)
    k, eps = k_epsilon(float(run.k[0]), float(run.eps[0]), run.t)
    ours = relative_l2(run.t, forecast.eps, run.eps)
    theirs = relative_l2(run.t, eps, run.eps)
    print(f"relative L2 error of eps: forecast {ours:.4f}, k-epsilon with 1.92 {theirs:.4f}")

    figure = Figure(figsize=(10, 7.4), layout="constrained")
    (a, b), (c, d) = figure.subplots(2, 2)
    plots.decay(run, forecast, {"k-epsilon, 1.92": (run.t, eps)}, "eps", a)
    plots.decay(run, forecast, {"k-epsilon, 1.92": (run.t, k)}, "k", b)
    plots.local_exponent([run], forecast, c)
    plots.energy_spectra(run, ax=d)
    study.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(study.out / "decay.png", dpi=150)
    turbulence.write_runs(study.out / "run.npz", [run])
    print(f"figure: {study.out / 'decay.png'}")


if __name__ == "__main__":
    main(tyro.cli(Study))
