"""Neural canonical transformations: a ring-shaped valley becomes an oscillator and a rotor."""

from __future__ import annotations

from sciflow import nct
from sciflow.demo.setting import Clock, Setting, panels
from sciflow.report import Entry, Figure, Section
from sciflow.systems import Ring
from sciflow.systems.charts import PolarChart


def ring(setting: Setting) -> Section:
    """The free energy of a ring by a learned change of coordinates, against quadrature."""
    from sciflow import plots

    system, clock = Ring(), Clock(setting.seed)
    model = nct.fit_energy(
        system.potential, 2, chart=PolarChart(), couplings=2, width=32, batch_size=512, lr=5e-3,
        steps=setting.steps(400), **setting.options,
    )  # fmt: skip
    estimate, exact = model.free_energy(20_000), system.free_energy(1.0)
    shared = {"source": "quadrature of the radius"} | clock.stop()
    entries = (
        Entry(
            "free energy of the ring, reweighted", estimate.value, exact, tolerance=0.001,
            unit="kT", error=estimate.error, **shared,
        ),
        Entry(
            "variational bound above the free energy", estimate.bound - exact, 0.0,
            tolerance=0.01, direction="at most", unit="kT", **shared,
        ),
        Entry(
            "effective share of the samples", estimate.ess, 1.0, tolerance=0.02,
            direction="at least", **shared,
        ),
    )  # fmt: skip
    points = model.sample(3000, seed=setting.seed)
    figure, (left, right) = panels(2, 4.4)
    left.scatter(*points.q.detach().T, s=3, lw=0)
    left.set(aspect="equal", xlabel="x", ylabel="y", title="samples of the model")
    Q = model.modes(points.q).detach()
    plots.latent(Q, right, color=points.q.detach().norm(dim=1), label="radius")
    right.set_title("angle $Q_1$ and oscillator $Q_2$")
    picture = Figure.save(
        figure, setting.out, "ring.png",
        "A ring of points in the plane, and the same points as a strip in learned coordinates",
        "Left: samples. Right: the same in the learned coordinates of a rotor and an oscillator.",
    )  # fmt: skip
    text = (
        "A particle in a ring-shaped valley at thermal energy. A canonical transformation is "
        "fitted to the energy alone, without samples: it makes the particle a free rotor and an "
        "independent oscillator, whose free energy is known. What the fit leaves is reweighted."
    )
    return Section(
        "Neural canonical transformation of a ring", text, entries, (picture,),
        command="python examples/ring.py && python examples/harmonic_chain.py",
    )  # fmt: skip
