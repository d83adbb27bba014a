"""Continuous normalizing flows: a density in the plane whose entropy is known."""

from __future__ import annotations

import torch

from sciflow import cnf
from sciflow.demo.setting import Clock, Setting, panels
from sciflow.report import Entry, Figure, Section
from sciflow.systems import TOYS


def moons(setting: Setting) -> Section:
    """Two moons: nats above the entropy, by a tight solve on fresh samples."""
    from sciflow import plots

    toy, clock = TOYS["moons"], Clock(setting.seed)
    generator = torch.Generator().manual_seed(setting.seed)
    x = toy.sample(20_000, generator)
    flow = cnf.fit_samples(
        x, matching_steps=setting.steps(3000), likelihood_steps=setting.steps(50),
        plane_waves=32, wavelength=2.0, **setting.options,
    )  # fmt: skip
    tight = flow.double().with_solver("dopri8", rtol=1e-7, atol=1e-7)
    fresh = toy.sample(3000, torch.Generator().manual_seed(setting.seed + 1))
    with torch.no_grad():
        gap = toy.log_prob(fresh) - tight.log_prob(fresh)
        back = tight.to_data(tight.to_latent(fresh[:200]))
        edge = torch.linspace(-4.0, 4.0, 141, dtype=torch.float64)
        grid = torch.cartesian_prod(edge, edge)
        coarse = flow.with_solver("dopri5", rtol=1e-5, atol=1e-5)
        mass = float(coarse.log_prob(grid).exp().sum() * (edge[1] - edge[0]) ** 2)
    shared = clock.stop()
    entries = (
        Entry(
            "held-out -ln p above the entropy", float(gap.mean()), 0.0,
            f"entropy {toy.entropy():.4f} nats of the closed form", tolerance=0.04,
            direction="at most", unit="nats", error=float(gap.std()) / len(gap) ** 0.5, **shared,
        ),
        Entry(
            "integral of the density over the plane", mass, 1.0, "sum over a grid",
            tolerance=0.005, **shared,
        ),
        Entry(
            "largest error of the inverse", float((back - fresh[:200]).abs().max()), 0.0,
            "there and back at tolerance 1e-7", tolerance=1e-5, direction="at most", **shared,
        ),
    )  # fmt: skip
    figure, (left, right) = panels(2, 4.8)
    plots.density(coarse, left, data=fresh[:400])
    plots.flow_lines(coarse, right)
    left.set(xlim=(-4.5, 4.5), ylim=(-4.0, 4.0))
    right.set(xlim=(-4.5, 4.5), ylim=(-4.0, 4.0))
    picture = Figure.save(
        figure, setting.out, "moons.png",
        "The density of two crescents with samples, and the lines along which the flow moves "
        "draws of a Gaussian",
        "Left: learned density and 400 fresh samples. Right: lines of the flow.",
    )  # fmt: skip
    text = (
        "A flow is fitted to 20 000 samples of two moons, by flow matching and then by maximum "
        "likelihood. Its density is exact; the score is by an independent solve on samples it "
        "has not seen. No model can be below the entropy."
    )
    return Section(
        "Continuous normalizing flow of two moons", text, entries, (picture,),
        command="python -m benchmarks.cnf toys",
    )  # fmt: skip
