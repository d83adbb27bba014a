"""Decays: curves with bands, spectra, the local C_eps2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sciflow.plots.style import CATEGORIES, GREY, axes, legend_above, time_colors

if TYPE_CHECKING:
    from sciflow.turbulence import DecayRun, Forecast


def decay(
    run: DecayRun | None = None,
    forecast: Forecast | None = None,
    others: dict[str, tuple[Any, Any]] | None = None,
    quantity: Literal["k", "eps"] = "eps",
    ax: Any = None,
) -> Any:
    """Draw k or eps over time: a record, a forecast with its band, and other models.

    Args:
        run: what was measured or simulated.
        forecast: of one decay.
        others: name to (t, values), for instance of a k-epsilon model.
        quantity: "k" or "eps".
        ax: matplotlib axes.

    Raises:
        ValueError: nothing to draw, or a forecast of several decays.
    """
    if run is None and forecast is None:
        raise ValueError("give a run, a forecast or both")
    ax = axes(ax)
    if forecast is not None:
        if forecast.k.ndim != 1:
            raise ValueError(f"forecast must be of one decay; it is of {forecast.k.shape[1]}")
        t = forecast.t.cpu().numpy()
        low, high = (
            getattr(forecast, f"{quantity}_{end}").detach().cpu().numpy()
            for end in ("low", "high")
        )
        ax.fill_between(t, low, high, color=CATEGORIES[0], alpha=0.2, lw=0, label="90 % band")
        values = getattr(forecast, quantity).detach().cpu().numpy()
        ax.plot(t, values, color=CATEGORIES[0], lw=1.6, label="forecast")
    for i, (name, (t, values)) in enumerate((others or {}).items()):
        color = CATEGORIES[(i + 1) % len(CATEGORIES)]
        ax.plot(np.asarray(t), np.asarray(values), color=color, lw=1.2, ls="--", label=name)
    if run is not None:
        every = max(1, len(run.t) // 40)
        ax.plot(
            run.t[::every], getattr(run, quantity)[::every], "o", ms=3.2, mfc="none",
            color="black", mew=0.9, label=run.name or "record",
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlabel("time")
    name = "kinetic energy k" if quantity == "k" else "dissipation rate"
    ax.set_ylabel(name)
    legend_above(ax, columns=2)
    return ax


def energy_spectra(run: DecayRun, number: int = 6, ax: Any = None) -> Any:
    """Draw the spectrum at times evenly spread over the fall of the energy.

    Args:
        run: with a spectrum.
        number: of times.
        ax: matplotlib axes.

    Raises:
        ValueError: the run has no spectrum.
    """
    if run.spectrum is None or run.kappa is None:
        raise ValueError("run has no spectrum")
    ax = axes(ax)
    levels = np.linspace(0, float(run.tau[-1]), number)
    rows = [int(np.abs(run.tau.numpy() - x).argmin()) for x in levels]
    for row, color in zip(rows, time_colors(levels.tolist()), strict=True):
        E = run.spectrum[row].numpy()
        shown = E > 1e-12 * E.max()
        label = f"{float(run.t[row]):.3g}"
        ax.loglog(run.kappa.numpy()[shown], E[shown], color=color, lw=1.4, label=label)
    ax.set_xlabel("wavenumber")
    ax.set_ylabel("energy spectrum E")
    legend_above(ax, title="time", columns=3)
    return ax


def local_exponent(
    runs: Sequence[DecayRun] = (), forecast: Forecast | None = None, ax: Any = None
) -> Any:
    """Draw the local C_eps2 = -d ln eps / d ln(1/k) over tau = ln(k_0/k).

    A k-epsilon model has a constant there; dotted lines show those of Saffman and Batchelor
    turbulence, 11/6 and 17/10.

    Args:
        runs: records.
        forecast: of one decay.
        ax: matplotlib axes.
    """
    ax = axes(ax)
    for level in (11 / 6, 1.7):
        ax.axhline(level, color=GREY, lw=0.8, ls=":")
    for i, run in enumerate(runs):
        color = CATEGORIES[(i + 1) % len(CATEGORIES)]
        ax.plot(run.tau, run.C2, color=color, lw=1.2, label=run.name or "record")
    if forecast is not None:
        tau = (forecast.k[0] / forecast.k).log().detach().cpu()
        C2 = forecast.C2.detach().cpu()
        ax.plot(tau, C2, color=CATEGORIES[0], lw=1.8, label="forecast")
    ax.set_xlabel("ln(k0 / k)")
    ax.set_ylabel("local C_eps2")
    legend_above(ax, columns=2)
    return ax
