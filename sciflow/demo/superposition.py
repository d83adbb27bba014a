"""Action matching: the density of a quantum superposition, from samples at any time."""

from __future__ import annotations

import torch

from sciflow import am
from sciflow.demo.setting import Clock, Setting, panels
from sciflow.report import Entry, Figure, Section
from sciflow.systems import OscillatorSuperposition

_START, _END = 0.6, 2.5


def oscillator(setting: Setting) -> Section:
    """Two states of the harmonic oscillator: in one dimension the field is known exactly."""
    system, clock = OscillatorSuperposition(), Clock(setting.seed)
    model = am.fit_sampler(
        system.sample, _START, _END, steps=setting.steps(800), **setting.options
    )
    generator = torch.Generator().manual_seed(setting.seed)
    times = torch.linspace(_START, _END, 31, dtype=torch.float64)
    error = size = 0.0
    for t in times.tolist():
        x = system.sample(torch.full((2000,), t, dtype=torch.float64), generator)
        truth = system.velocity(t, x)
        error += float((model.velocity(t, x) - truth).square().sum())
        size += float(truth.square().sum())
    # Trajectories in one dimension never cross: each keeps the share of the density to its left.
    share = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    paths = model.trajectories(system.quantile(_START, share), times)
    exact = torch.stack([system.quantile(t, share) for t in times])
    worst = float((paths.x - exact).abs().mean())
    shared = {"source": "closed form: current over density"} | clock.stop()
    entries = (
        Entry(
            "relative error of the velocity (L2)", (error / size) ** 0.5, 0.0, tolerance=0.1,
            direction="at most", **shared,
        ),
        Entry(
            "mean distance of 19 trajectories from Bohm's", worst, 0.0, tolerance=0.03,
            direction="at most", unit="sqrt(hbar / m omega)", **shared,
        ),
    )  # fmt: skip
    figure, (left, right) = panels(2)
    grid = torch.linspace(-3.5, 3.5, 300, dtype=torch.float64)[:, None]
    for t, color in ((_START, "0.7"), ((_START + _END) / 2, "0.45"), (_END, "0.0")):
        left.plot(grid[:, 0], system.density(t, grid), color=color, label=f"t = {t:.2g}")
    left.set(xlabel="x", ylabel="density")
    left.legend(frameon=False)
    right.plot(times, exact[..., 0], color="0.7", lw=3)
    right.plot(times, paths.x[..., 0], color="C0", lw=1)
    right.set(xlabel="t", ylabel="x")
    picture = Figure.save(
        figure, setting.out, "superposition.png",
        "A density with two humps that exchange weight, and trajectories that follow",
        "Left: the density, of which samples are given. Right: trajectories of the learned field "
        "over the exact ones (grey).",
    )  # fmt: skip
    text = (
        "Two states of a harmonic oscillator are superposed. Action matching is given samples of "
        "the moving density, no wave function and no trajectories, and finds the field that "
        "moves it: in one dimension that is the velocity of Bohm's trajectories."
    )
    return Section(
        "Action matching of a quantum superposition", text, entries, (picture,),
        command="python examples/hydrogen.py",
    )  # fmt: skip
