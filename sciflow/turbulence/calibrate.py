"""The width of the bands, from decays that the networks have not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator

from sciflow.shapes import Tensor
from sciflow.turbulence.edqnm import Closure, closure
from sciflow.turbulence.features import ENCODERS
from sciflow.turbulence.forecaster import Calibration, Forecaster
from sciflow.turbulence.model import DecayODE
from sciflow.turbulence.runs import DecayRun

# Of a 90 % band of a normal error.
_NORMAL = 1.645
# Errors of the closure that are taken where there is no simulation to tell: ln eps, ln k.
_CLOSURE = (0.07, 0.05)


def calibrate(
    model: DecayODE, runs: Sequence[DecayRun], unseen: Sequence[DecayRun]
) -> Calibration:
    """Measure floor, reach and scale; see `Calibration`.

    The scale is conformal: nine of ten errors of ``unseen``, over all their starts and times,
    lie within the band.

    Args:
        model: the ensemble.
        runs: those of the fit.
        unseen: those of the calibration.

    Source: Angelopoulos and Bates, arXiv:2107.07511, section 2.3, for scaled residuals.
    """
    measured = [run for run in runs if run.source != "closure"] or list(runs)
    reynolds = torch.cat([run.Re_T.log() for run in measured])
    reach = (float(reynolds.min()), float(reynolds.max()))
    plain = Calibration(dict.fromkeys(ENCODERS, 1.0), (0.005, 0.003), reach, closure_error(runs))
    forecaster = Forecaster(model, plain)
    scale = {}
    for name in ENCODERS:
        ratios = [r for run in unseen for i in _starts(run) for r in _ratios(forecaster, run, i, name)]
        scale[name] = float(np.quantile(np.concatenate(ratios), 0.9)) if ratios else _NORMAL
    return Calibration(scale, plain.floor, reach, plain.outside)


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


def _interpolated(run: DecayRun):  # noqa: ANN202
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


def _starts(run: DecayRun) -> list[int]:
    """Rows of a run at tau of about 0, .35, .7 and 1.4."""
    return [int(np.searchsorted(run.tau.numpy(), x - 1e-9)) for x in (0.0, 0.35, 0.7, 1.4)]


def knowledge(run: DecayRun, i: int, name: str) -> dict[str, object] | None:
    """Arguments of `Forecaster.forecast` at row ``i`` for an encoder; None where they lack."""
    out: dict[str, object] = {"encoder": name, "box": run.box, "k_max": run.k_max}
    if name in ("skewness", "both"):
        if run.skewness is None or run.palinstrophy is None:
            return None
        out |= {"skewness": run.skewness[i], "palinstrophy": run.palinstrophy[i]}
    if name in ("spectrum", "both"):
        if run.spectrum is None:
            return None
        out["spectrum"] = (run.kappa, run.spectrum[i])
    if name == "history":
        if float(run.tau[i]) < 0.1:
            return None
        out["history"] = (run.t[: i + 1], run.k[: i + 1], run.eps[: i + 1])
    return out


def _ratios(forecaster: Forecaster, run: DecayRun, i: int, name: str) -> list[np.ndarray]:
    """Errors of ln eps over the half width of the band at unit scale."""
    known = knowledge(run, i, name)
    if known is None or i >= len(run.t) - 3:
        return []
    with torch.no_grad():
        f = forecaster.forecast(run.k[i], run.eps[i], run.nu, run.t[i:], **known)  # type: ignore[arg-type]
    error = (run.eps[i:] / f.eps).log().abs()[1:]
    width = (f.eps_high / f.eps).log()[1:]
    return [(error / width).numpy()]
