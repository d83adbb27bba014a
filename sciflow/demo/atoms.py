"""Wasserstein quantum Monte Carlo: the ground state of helium."""

from __future__ import annotations

from sciflow import wqmc
from sciflow.demo.setting import Clock, Setting, panels
from sciflow.report import Entry, Figure, Section

#: Non-relativistic energy of helium with a nucleus at rest [hartree].
_EXACT, _SOURCE = -2.903724377, "Drake (1996), non-relativistic, fixed nucleus"
_HARTREE_FOCK = -2.861680


def helium(setting: Setting) -> Section:
    """Energy of helium by a neural wave function, against the exact one."""
    from sciflow import plots

    clock = Clock(setting.seed)
    result = wqmc.fit(
        "He", steps=setting.steps(150), evaluation_batches=16, log_every=1, **setting.options
    )
    shared = clock.stop()
    above = 1e3 * (result.energy - _EXACT)
    entries = (
        Entry(
            "energy of helium above the exact one", above, 0.0, _SOURCE, tolerance=2.0,
            unit="mHa", error=1e3 * result.error, **shared,
        ),
        Entry(
            "the same against Hartree-Fock", result.energy, _HARTREE_FOCK,
            "Hartree-Fock limit, Clementi and Roetti (1974)", tolerance=0.0, direction="at most",
            unit="hartree", error=result.error, **shared,
        ),
    )  # fmt: skip
    figure, (left, right) = panels(2)
    plots.energy_trace(result.history, _EXACT, left, window=30)
    line = [0.2 * i - 2.5 for i in range(26)]
    cloud = wqmc.density(result.wavefunction, (line, [-0.3, 0.3], line), walkers=1000, batches=16)
    plots.electron_density(cloud, right)
    picture = Figure.save(
        figure, setting.out, "helium.png",
        "The energy falls towards the exact one, and a round cloud of electrons",
        "Left: energies of the training walkers, means of 30 steps. Right: their density.",
    )  # fmt: skip
    text = (
        "A network with determinants and exact cusps is the wave function of two electrons. The "
        "energy is that of fresh walkers with frozen parameters, nothing clipped; it cannot be "
        "below the exact one but for its error bar."
    )
    return Section(
        "Ground state of helium", text, entries, (picture,),
        command="python examples/h2_dissociation.py",
    )  # fmt: skip
