"""Histograms of Boltzmann generators: what the flow draws, what its weights make of it, truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from sciflow.metrics.points import Array, as_real
from sciflow.plots.style import CATEGORIES, GREY, axes, legend_above


def weighted_histogram(
    drawn: Array,
    log_weight: Array,
    ax: Any = None,
    truth: Array | None = None,
    density: tuple[Array, Array] | None = None,
    bins: int = 60,
    label: str = "energy",
) -> Any:
    """Draw the histogram of a quantity: of the flow, reweighted, and of a reference.

    Args:
        drawn: the quantity at samples of the flow, (n,), or (n, k) for k values per sample.
        log_weight: logarithms of the weights of the samples, (n,).
        ax: matplotlib axes.
        truth: the quantity at samples of a reference, (m,) or (m, k), drawn as filled bars.
        density: an exact one instead, as points (r,) and values (r,), drawn as a black line.
        bins: number of bins, which span what has weight.
        label: of the horizontal axis, with its unit.

    Returns:
        The axes.

    Raises:
        ValueError: shapes disagree, or values are not finite.
    """
    values = as_real(drawn, "drawn").cpu()
    logs = as_real(log_weight, "log_weight").cpu()
    if values.ndim not in (1, 2) or logs.shape != values.shape[:1]:
        raise ValueError(
            "drawn must be (n,) or (n, k) and log_weight (n,); got "
            f"{tuple(values.shape)} and {tuple(logs.shape)}"
        )
    if not bool(values.isfinite().all()):
        raise ValueError("drawn must be finite")
    weights = logs.softmax(0)
    if values.ndim == 2:
        weights = weights[:, None].expand_as(values).flatten()
    x, w = values.flatten().numpy(), weights.numpy()
    order = np.argsort(x)
    mass = np.cumsum(w[order]) / w.sum()
    low, high = x[order][np.searchsorted(mass, (1e-4, 1 - 1e-4)).clip(0, len(x) - 1)]
    margin = 0.08 * (high - low)
    edges = np.linspace(low - margin, high + margin, bins + 1)
    width = edges[1] - edges[0]
    ax = axes(ax)
    if truth is not None:
        reference = as_real(truth, "truth").cpu().numpy().ravel()
        heights = np.histogram(reference, edges)[0] / (len(reference) * width)
        ax.stairs(heights, edges, fill=True, color=GREY, alpha=0.45, label="long Markov chains")
    for name, share, color in (
        ("flow", np.full(len(x), 1 / len(x)), CATEGORIES[1]),
        ("flow, reweighted", w / w.sum(), CATEGORIES[0]),
    ):
        heights = np.histogram(x, edges, weights=share)[0] / width
        ax.stairs(heights, edges, color=color, lw=1.6, label=name)
    if density is not None:
        at, height = (as_real(part, "density").cpu().numpy() for part in density)
        ax.plot(at, height, color="black", lw=1, ls="--", label="exact")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0)
    ax.set_xlabel(label)
    ax.set_ylabel("probability density")
    legend_above(ax, columns=2)
    return ax
