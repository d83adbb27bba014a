"""Decaying turbulence: the shipped forecaster on a simulation it has not seen."""

from __future__ import annotations

import torch

from sciflow import turbulence
from sciflow.demo.setting import Clock, Setting, panels
from sciflow.report import Entry, Figure, Section
from sciflow.turbulence.baselines import calibrated, k_epsilon, relative_l2
from sciflow.turbulence.knowledge import knowledge

_POINTS, _VISCOSITY, _PEAK = 48, 0.045, 3.7


def decay(setting: Setting) -> Section:
    """Simulate a field at 48^3 now, and forecast its decay from the first record."""
    from sciflow import plots

    clock = Clock(setting.seed)
    spectrum = turbulence.PeakedSpectrum(peak=_PEAK)
    (run,) = turbulence.simulate(
        _POINTS, _VISCOSITY, spectrum, [1000 + setting.seed],
        tau_max=max(0.1, 2.0 * setting.effort), device="cpu", name="simulation",
        progress=setting.progress,
    )  # fmt: skip
    forecaster = turbulence.pretrained()
    known = knowledge(run, 0, "both") or {}
    with torch.no_grad():
        found = forecaster.forecast(run.k[0], run.eps[0], run.nu, run.t, **known)
    constant = calibrated(turbulence.decays("train"))
    start = float(run.k[0]), float(run.eps[0])
    k, eps = k_epsilon(*start, run.t, constant)
    ours, theirs = (relative_l2(run.t, x, run.eps) for x in (found.eps, eps))
    inside = (run.eps > found.eps_low) & (run.eps < found.eps_high)
    shared = clock.stop()
    entries = (
        Entry(
            "relative L2 error of the dissipation rate", ours, theirs,
            f"k-epsilon with the constant that fits the training best, {constant:.2f}; same run",
            tolerance=0.0, direction="at most", **shared,
        ),
        Entry(
            "the same against the bound for decays in range", ours, 0.05, "the simulation itself",
            tolerance=0.0, direction="at most", **shared,
        ),
        Entry(
            "share of the times at which the 90 % band holds the simulation",
            float(inside[1:].double().mean()), 0.9, "nominal; one run is far from a proof",
            tolerance=0.3, direction="at least", **shared,
        ),
        Entry(
            "energy balance of the simulation: largest relative gap",
            run.balance or 0.0, 0.0, "k lost against the integral of eps", tolerance=0.01,
            direction="at most", **shared,
        ),
    )  # fmt: skip
    figure, (left, right) = panels(2)
    plots.decay(run, found, {f"k-epsilon, {constant:.2f}": (run.t, eps)}, "eps", left)
    plots.local_exponent([run], found, right)
    picture = Figure.save(
        figure, setting.out, "turbulence.png",
        "Dissipation rate of a simulated decay with its forecast and band, and the local exponent",
        "Left: dissipation rate over time. Right: the exponent that k-epsilon takes as constant.",
    )  # fmt: skip
    text = (
        f"A random field is simulated on {_POINTS}^3 points by the Navier-Stokes equations. A "
        "neural ODE that sciflow ships, trained on other spectra and viscosities, forecasts its "
        "kinetic energy and dissipation rate from the first record alone."
    )
    return Section(
        "Forecast of decaying turbulence", text, entries, (picture,),
        command="python -m benchmarks turbulence",
    )  # fmt: skip
