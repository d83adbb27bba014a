"""The width of the bands, from decays that the networks have not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator

from sciflow.shapes import Tensor
from sciflow.turbulence.edqnm import Closure, closure
from sciflow.turbulence.features import ENCODERS
from sciflow.turbulence.forecaster import Calibration, Forecaster
from sciflow.turbulence.knowledge import Seen, knowledge, seen
from sciflow.turbulence.model import DecayODE
from sciflow.turbulence.runs import DecayRun

# Of a 90 % band of a normal error.
_NORMAL = 1.645
# Errors of the closure that are taken where there is no simulation to tell: ln eps, ln k.
_CLOSURE = (0.07, 0.05)
# Values of tau of the starts that the bands are made for.
_AGES = (0.0, 0.35, 0.7, 1.4)
# Times of each of their forecasts, evenly in tau.
_TIMES = 40


def calibrate(
    model: DecayODE, runs: Sequence[DecayRun], unseen: Sequence[DecayRun]
) -> Calibration:
    """Measure floor, reach and scale; see `Calibration`.

    The scale is conformal, and holds at any age of the start, which k and eps alone do not tell:
    of starts at tau = 0, of those at .35 and so on, nine of ten errors of the simulations in
    ``unseen`` over all times lie within the band. Closures in ``unseen`` tell the errors beyond
    the Reynolds numbers that were simulated, with what the closure itself is off by.

    Args:
        model: the ensemble.
        runs: those of the fit.
        unseen: those of the calibration.

    Source: Angelopoulos and Bates, arXiv:2107.07511, section 2.3 for scaled residuals, 4.2 for
        coverage in each group.
    """
    measured = [run for run in runs if run.source != "closure"] or list(runs)
    middle = [
        run.Re_T[int(np.searchsorted(run.tau.numpy(), 0.5))].log()
        for run in measured
        if float(run.tau[-1]) > 0.5
    ]
    low = [run.Re_T[run.tau < 1.5].min().log() for run in measured]
    reach = (float(min(low)), float(max(middle or low)))
    plain = dict.fromkeys(ENCODERS, (1.0, 1.0))
    nothing = dict.fromkeys(ENCODERS, (0.0, 0.0))
    forecaster = Forecaster(model, Calibration(plain, reach, nothing))
    shared = closure_error(runs)
    scale, outside = {}, {}
    closures = [run for run in unseen if run.source == "closure"]
    others = [run for run in unseen if run.source != "closure"]
    for name in ENCODERS:
        found = [_residuals(forecaster, others, age, name) for age in _AGES]
        ratios = [x.errors / x.widths.clamp_min(1e-9) for x in found if x is not None]
        # Random starts of closures are left out: resolved or not, some have next to no
        # dissipation yet. `deviation` has the growth that is divided out.
        found = [_residuals(forecaster, closures, age, name) for age in _AGES[1:]]
        errors = [x.errors * (x.tau + 0.5) / x.tau for x in found if x is not None]
        scale[name] = _nine_of_ten(ratios, _NORMAL)
        own = _nine_of_ten(errors, 0.0)
        outside[name] = (
            math.hypot(shared[0], own[0] / _NORMAL), math.hypot(shared[1], own[1] / _NORMAL),
        )  # fmt: skip
    return Calibration(scale, reach, outside)


def _nine_of_ten(groups: list[Tensor], otherwise: float) -> tuple[float, float]:
    """The ninth deciles of (2, T, B) arrays, the largest of the groups."""
    if not groups:
        return otherwise, otherwise
    deciles = torch.stack([group.flatten(1).quantile(0.9, dim=1) for group in groups])
    a, b = deciles.amax(0).tolist()
    return a, b


def closure_error(runs: Sequence[DecayRun]) -> tuple[float, float]:
    """Root mean square differences of ln eps and ln k between simulations and the closure.

    Simulations that started from Gaussian fields are done again by the closure, from their
    spectra, and compared at the same times. Where there is none, .07 and .05.
    """
    usable = [
        run
        for run in runs
        if run.source == "simulation" and run.kappa is not None and run.spectrum is not None
        and run.skewness is not None and abs(float(run.skewness[0])) < 0.1
    ]  # fmt: skip
    if not usable:
        return _CLOSURE
    cases = [
        Closure(
            spectrum=_interpolated(run), nu=run.nu, box=run.box or 2 * math.pi,
            k_max=run.k_max or float(run.kappa[-1]),  # type: ignore[index]
        )
        for run in usable
    ]  # fmt: skip
    eps, k = [], []
    for run, again in zip(usable, closure(cases), strict=True):
        t = run.t[(run.t < again.t[-1]) & (run.tau < 3)][1:]
        a, b = run.resample(t=t), again.resample(t=t)
        eps.append((a.eps / b.eps).log())
        k.append((a.k / b.k).log())
    return tuple(float(torch.cat(x).square().mean().sqrt()) for x in (eps, k))  # type: ignore[return-value]


def _interpolated(run: DecayRun) -> Callable[[Tensor], Tensor]:
    """The start spectrum of a run between its wavenumbers, its energy kept."""
    kappa, E = run.kappa.numpy(), run.spectrum[0].numpy()  # type: ignore[union-attr,index]
    line = PchipInterpolator(np.log(kappa), np.log(np.maximum(E, 1e-30 * E.max())))
    energy = float(run.k[0])

    def spectrum(x: Tensor) -> Tensor:
        at = np.log(x.numpy())
        out = np.exp(line(np.clip(at, np.log(kappa[0]), np.log(kappa[-1]))))
        out = out * np.exp(2 * np.minimum(at - np.log(kappa[0]), 0))
        E = torch.from_numpy(out)
        width = torch.gradient(x)[0]
        return E * (energy / (E * width).sum())

    return spectrum


class _Residuals(NamedTuple):
    """Absolute errors of ln eps and ln k and the half widths of their bands, (2, T, B); tau."""

    errors: Tensor
    widths: Tensor
    tau: Tensor


def _residuals(
    forecaster: Forecaster, runs: Sequence[DecayRun], age: float, name: str
) -> _Residuals | None:
    """Forecasts of all runs from tau = ``age`` at once, at as many times of each; None without."""
    parts, starts = [], []
    for run in runs:
        i = int(np.searchsorted(run.tau.numpy(), age - 1e-9))
        known = knowledge(run, i, name) if i < len(run.t) - 3 else None
        if known is None:
            continue
        part = run.since(i)
        parts.append(part.resample(tau=torch.linspace(0, 1, _TIMES).double() * part.tau[-1]))
        starts.append(seen(part.k[:1], part.eps[:1], torch.tensor([run.nu]).double(), **known))
    if not parts:
        return None
    t, k, eps, tau = (
        torch.stack([getattr(part, field) for part in parts], 1)
        for field in ("t", "k", "eps", "tau")
    )
    nu = torch.tensor([part.nu for part in parts], dtype=torch.float64)
    around, numbers = (torch.cat(x) for x in list(zip(*starts, strict=True))[1:])
    with torch.no_grad():
        f = forecaster.solve(t, k[0], eps[0], nu, Seen(name, around, numbers))
    errors = torch.stack([(eps / f.eps).log().abs(), (k / f.k).log().abs()])
    widths = torch.stack([(f.eps_high / f.eps).log(), (f.k_high / f.k).log()])
    return _Residuals(errors[:, 1:], widths[:, 1:], tau[1:])
