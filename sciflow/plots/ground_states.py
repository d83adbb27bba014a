"""Ground states: energies while they are found, dissociation curves, electron densities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sciflow.plots.style import CATEGORIES, GREY, axes, legend_above
from sciflow.train.history import History
from sciflow.wqmc import Density, GroundState

_KCAL_PER_MOL = 1.594  # mHa


def energy_trace(
    histories: History | dict[str, History],
    exact: float,
    ax: Any = None,
    window: int = 15,
) -> Any:
    """Draw energies above the exact one against the step, in mHa.

    Each curve is a running mean over batches of training walkers, shaded by its standard error,
    which takes the batches for independent though the walkers are the same. The axis is
    logarithmic above 1 kcal/mol, and linear below, since noise goes under zero.

    Args:
        histories: the record of a fit, or several by name.
        exact: energy to compare with [hartree].
        ax: matplotlib axes.
        window: logged rows in the running mean, at most half of those there are.

    Returns:
        The axes.

    Raises:
        ValueError: ``window`` is less than 1.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    ax = axes(ax)
    named = {"energy": histories} if isinstance(histories, History) else histories
    for i, (name, history) in enumerate(named.items()):
        steps, energies = history.series("energy")
        errors = np.asarray(history.series("error")[1])
        rows = max(1, min(window, len(steps) // 2))
        kernel = np.ones(rows) / rows
        above = 1e3 * (np.convolve(energies, kernel, "valid") - exact)
        error = 1e3 * np.sqrt(np.convolve(errors**2, kernel, "valid") / rows)
        middle = np.convolve(steps, kernel, "valid")
        color = CATEGORIES[i % len(CATEGORIES)]
        ax.plot(middle, above, color=color, lw=1.5, label=name)
        ax.fill_between(middle, above - error, above + error, color=color, alpha=0.2, lw=0)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.axhline(_KCAL_PER_MOL, color=GREY, lw=0.8, ls="--")
    ax.text(0.99, _KCAL_PER_MOL, "1 kcal/mol", color=GREY, ha="right", va="bottom",
            fontsize="small", transform=ax.get_yaxis_transform())  # fmt: skip
    ax.set_yscale("symlog", linthresh=_KCAL_PER_MOL)
    ax.set_xlabel("step")
    ax.set_ylabel("energy above exact (mHa)")
    if len(named) > 1:
        legend_above(ax)
    return ax


def dissociation(
    lengths: Sequence[float],
    results: Sequence[GroundState],
    references: dict[str, Sequence[float]] | None = None,
    ax: Any = None,
) -> Any:
    """Draw energies with error bars against a bond length, beside those of other methods.

    Args:
        lengths: of the bond [bohr], one for each result.
        results: ground states.
        references: energies [hartree] at the same lengths, by the name of the method.
        ax: matplotlib axes.

    Returns:
        The axes.

    Raises:
        ValueError: numbers of lengths and energies differ.
    """
    rows = {"results": len(results), **{k: len(v) for k, v in (references or {}).items()}}
    for name, count in rows.items():
        if count != len(lengths):
            raise ValueError(f"lengths has {len(lengths)} entries, {name} has {count}")
    ax = axes(ax)
    for i, (name, energies) in enumerate((references or {}).items()):
        ax.plot(lengths, energies, color=CATEGORIES[(i + 1) % len(CATEGORIES)], lw=1.4, label=name)
    ax.errorbar(
        lengths,
        [r.energy for r in results],
        [r.error for r in results],
        fmt="o",
        ms=4,
        capsize=2,
        color=CATEGORIES[0],
        label="sciflow",
    )
    ax.set_xlabel("bond length (bohr)")
    ax.set_ylabel("energy (hartree)")
    legend_above(ax, columns=3)
    return ax


def electron_density(density: Density, ax: Any = None) -> Any:
    """Draw an electron density over x and z, the mean over the cells along y, on a log scale.

    Args:
        density: counted with cells of equal size along y, best a thin slab.
        ax: matplotlib axes.

    Returns:
        The axes.
    """
    from matplotlib.colors import LogNorm

    ax = axes(ax)
    x, _, z = (e.cpu().numpy() for e in density.edges)
    value = density.value.mean(1).cpu().numpy()
    top = value.max()
    image = ax.pcolormesh(
        z, x, np.maximum(value, 1e-4 * top), norm=LogNorm(1e-4 * top, top), cmap="viridis"
    )
    ax.figure.colorbar(image, ax=ax, label="electrons per bohr$^3$")
    ax.set_aspect("equal")
    ax.set_xlabel("z (bohr)")
    ax.set_ylabel("x (bohr)")
    return ax
