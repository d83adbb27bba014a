"""The decays that sciflow ships: simulations and closures, and what each is for.

``python -m sciflow.turbulence.campaign FILE.npz`` makes the file again, in about half an hour.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from sciflow.shapes import Tensor
from sciflow.turbulence.dataset import write_runs
from sciflow.turbulence.dns import simulate
from sciflow.turbulence.edqnm import Closure, closure
from sciflow.turbulence.runs import DecayRun
from sciflow.turbulence.spectra import PeakedSpectrum

#: Seeds of each simulated case.
SEEDS = 4


class Case(NamedTuple):
    """A simulated decay: points, peak of the spectrum, power below it, fall above it, nu."""

    n: int
    peak: float
    slope: float
    fall: str
    nu: float


#: Simulations by purpose. "train" fits the networks, "calibrate" their bands; "test" (in range)
#: and "beyond" (a Reynolds number 1.7 times the largest of the training) are for scores alone.
CASES: dict[str, tuple[Case, ...]] = {
    "train": (
        Case(64, 4.0, 4.0, "gauss", 0.030),
        Case(64, 5.0, 4.0, "gauss", 0.025),
        Case(64, 6.0, 4.0, "gauss", 0.025),
        Case(64, 3.5, 4.0, "gauss", 0.040),
        Case(64, 5.0, 4.0, "gauss", 0.050),
        Case(64, 4.0, 2.0, "gauss", 0.030),
        Case(64, 5.0, 2.0, "gauss", 0.030),
        Case(64, 6.0, 2.0, "gauss", 0.040),
        Case(64, 4.0, 4.0, "exp", 0.030),
        Case(64, 5.0, 2.0, "exp", 0.040),
        Case(64, 6.0, 4.0, "exp", 0.060),
        Case(64, 4.0, 2.0, "power", 0.035),
        Case(64, 5.0, 4.0, "power", 0.040),
        Case(64, 4.5, 3.0, "gauss", 0.080),
        Case(64, 3.5, 2.0, "exp", 0.050),
    ),
    "calibrate": (
        Case(64, 4.5, 4.0, "gauss", 0.035),
        Case(64, 5.5, 2.0, "gauss", 0.030),
        Case(64, 4.0, 3.0, "exp", 0.045),
        Case(64, 5.0, 3.0, "power", 0.035),
        Case(64, 4.5, 4.0, "exp", 0.030),
        Case(64, 6.0, 3.0, "gauss", 0.030),
        Case(64, 4.0, 2.0, "gauss", 0.050),
        Case(64, 5.5, 4.0, "power", 0.045),
    ),
    "test": (
        Case(64, 4.5, 3.0, "gauss", 0.028),
        Case(64, 5.0, 4.0, "exp", 0.035),
        Case(64, 5.5, 4.0, "gauss", 0.045),
        Case(64, 4.5, 2.0, "power", 0.040),
    ),
    "beyond": (
        Case(96, 4.0, 4.0, "gauss", 0.0155),
        Case(96, 4.5, 2.0, "gauss", 0.0150),
    ),
}


def simulations(purpose: str, progress: bool = True) -> Iterator[DecayRun]:
    """Simulate the cases of a purpose, one decay after the other.

    Args:
        purpose: a key of `CASES`; it begins the name of each run.
        progress: show a progress bar.
    """
    first = 100 * list(CASES).index(purpose)
    jobs = [(i, case, s) for i, case in enumerate(CASES[purpose]) for s in range(SEEDS)]
    for i, case, s in tqdm(jobs, desc=purpose, unit="run", disable=not progress):
        spectrum = PeakedSpectrum(peak=case.peak, slope=case.slope, fall=case.fall)
        name = f"{purpose}-{i:02d}"
        yield from simulate(
            case.n, case.nu, spectrum, [first + SEEDS * i + s],
            cfl=1.2, device="cpu", name=name, progress=False,
        )  # fmt: skip


class _Rough:
    """A peaked spectrum with random smooth wiggles, as no textbook draws it."""

    def __init__(self, base: PeakedSpectrum, generator: torch.Generator) -> None:
        self.base = base
        draws = torch.rand(3, 3, generator=generator, dtype=torch.float64)
        self.size = 0.25 * draws[0]
        self.wave = 0.8 + 2.5 * draws[1]
        self.phase = 2 * math.pi * draws[2]

    def __call__(self, kappa: Tensor) -> Tensor:
        x = (kappa / self.base.peak).log()[:, None]
        wiggle = (self.size * torch.sin(self.wave * x + self.phase)).sum(1)
        return self.base(kappa) * wiggle.exp()


def closures(number: int, seed: int = 0, name: str = "closure") -> list[Closure]:
    """Random decays of the closure: Reynolds numbers of 3 to some thousands, resolved or not.

    Peaks at 1.5 to 80 wavenumbers of the box, powers 1 to 4.5 below them, k_max eta of .3 to 6,
    a Gaussian start for two of five.
    """
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i in range(number):
        x = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        fall = ("gauss", "exp", "power")[int(3 * x[0])]
        slope = 1 + 3.5 * x[1]
        peak = math.exp(math.log(1.5) + math.log(80 / 1.5) * x[2])
        # Of the developed state: eps is about .5 k^1.5 / L, L about 1 / peak.
        Re_T = math.exp(math.log(10) + math.log(3e4) * x[3])
        k = 1.5
        rate = 0.3 * k**1.5 * peak
        nu = k**2 / (rate * Re_T)
        eta = (nu**3 / rate) ** 0.25
        resolution = math.exp(math.log(0.3) + math.log(6 / 0.3) * x[4])
        k_max = max(resolution / eta, 3 * peak)
        base = PeakedSpectrum(peak=peak, slope=slope, fall=fall, k=k)
        out.append(
            Closure(
                spectrum=_Rough(base, generator),
                nu=nu,
                k_max=k_max,
                gaussian=x[5] < 0.4,
                name=f"{name}-{i:04d}",
            )
        )
    return out


def closure_runs(
    number: int = 480, seed: int = 0, name: str = "closure", progress: bool = True
) -> list[DecayRun]:
    """Compute `closures` in batches of like size; in the order of their numbers."""
    cases = closures(number, seed, name)
    order = np.argsort([case.n_shells for case in cases])
    runs: dict[int, DecayRun] = {}
    for start in tqdm(range(0, number, 48), desc="closures", unit="batch", disable=not progress):
        part = order[start : start + 48]
        batch = closure([cases[i] for i in part])
        runs.update(zip(part.tolist(), batch, strict=True))
    return [runs[i] for i in range(number)]


def main(path: str) -> None:
    """Make all decays and write them; simulations are kept as they come."""
    runs = closure_runs() + closure_runs(48, seed=1, name="calibrate-closure")
    for purpose in CASES:
        for run in simulations(purpose):
            runs.append(run)
            write_runs(Path(path).with_suffix(".part.npz"), runs)
    write_runs(path, runs)


if __name__ == "__main__":
    main(sys.argv[1])
