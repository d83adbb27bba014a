"""Fitting a Wasserstein Lagrangian flow to snapshots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sciflow.am import ActionPotential, Lagrangian
from sciflow.am.lagrangians import find_lagrangian
from sciflow.am.objective import ActionMatching
from sciflow.am.recipe import FitOptions as ActionMatchingOptions
from sciflow.am.recipe import prepare, train
from sciflow.shapes import Tensor
from sciflow.train import ParamGroup, Snapshots
from sciflow.wlf.objective import WassersteinLagrangianFlow
from sciflow.wlf.path import LearnedPath


@dataclass(frozen=True, kw_only=True)
class FitOptions(ActionMatchingOptions):
    """Settings of a fit of a Wasserstein Lagrangian flow."""

    path: Literal["learned", "geodesic"] = "learned"
    """Path between partners under optimal transport: "learned" starts as the geodesic and is bent
    by the min-max game; "geodesic" keeps it, which is exact for optimal transport between two
    snapshots."""
    path_lr: float = 3e-5
    """Learning rate of the path. It must be far slower than the potential, which has to follow
    it: at 1e-4 the path finds bends that the potential does not follow, and the flow misses the
    snapshots. With a potential energy, whose paths are far from straight, take about 1e-3."""
    path_width: int = 64
    """Width of the hidden layers of the path."""
    path_depth: int = 2
    """Number of hidden layers of the path."""
    inner_moves: int = 0
    """Moves of path points up the Hamiltonian before the potential sees them; more than 0 needs
    the estimator "dual"."""
    inner_step: float = 0.01
    """Size of such a move, in units of the spread of the data."""


def fit(
    snapshots: Snapshots,
    lagrangian: str | Lagrangian = "ot",
    hold_out: Iterable[int] = (),
    **options: Any,
) -> ActionPotential:
    """Fit the flow of least action through snapshots.

    Neklyudov et al., "A Computational Framework for Solving Wasserstein Lagrangian Flows",
    arXiv:2310.10649: a potential, whose gradient is the velocity, and a path between the
    snapshots are learned against each other; see ``WassersteinLagrangianFlow``.

    Args:
        snapshots: samples at two or more times.
        lagrangian: name in ``LAGRANGIANS``, or a ``Lagrangian`` of the user's own.
        hold_out: indices of time points that the fit must not see.
        options: fields of ``FitOptions``.

    Returns:
        The fitted potential, with ``history`` and ``action()`` measured. After Ctrl-C it is what
        the fit had reached, and ``interrupted`` is set.

    Raises:
        ValueError: an unknown Lagrangian, or an option out of range.
        TypeError: an unknown option.
        DataError: fewer than two time points remain.

    Example:
        >>> import torch
        >>> from sciflow import Snapshots, wlf
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = wlf.fit(Snapshots([x, x + 1.0], [0.0, 2.0]), steps=20, progress=False)
        >>> model.velocity(1.0, x).shape
        torch.Size([200, 2])
    """
    settings = FitOptions(**options)
    row = find_lagrangian(lagrangian)
    problem = prepare(snapshots, hold_out, settings)
    inner = _in_network_units(row, problem.model)
    if settings.path == "geodesic":
        if row.potential is not None:
            raise ValueError("straight lines ignore the potential energy: use path='learned'")
        objective = ActionMatching(problem.model, inner, estimator=settings.estimator)
        return train(problem, objective, settings, "adam")
    if settings.path != "learned":
        raise ValueError(f"path must be 'learned' or 'geodesic'; got {settings.path!r}")
    path = LearnedPath(
        problem.model.scale.dim, settings.path_width, settings.path_depth, problem.generator
    )
    game = WassersteinLagrangianFlow(
        problem.model, inner, path, settings.estimator, settings.inner_moves, settings.inner_step
    )
    players = [ParamGroup("model"), ParamGroup("path", lr=settings.path_lr, maximize=True)]
    return train(problem, game, settings, players)


def _in_network_units(lagrangian: Lagrangian, model: ActionPotential) -> Lagrangian:
    """The same Lagrangian for the rescaled time and positions that the network sees."""
    potential, scale = lagrangian.potential, model.scale
    if potential is None:
        return lagrangian

    def rescaled(t: Tensor, x: Tensor) -> Tensor:
        center = model.center.to(x)
        outer = potential(scale.start + scale.duration * t, center + scale.length * x)
        return outer * (scale.duration / scale.length) ** 2

    return Lagrangian(potential=rescaled)
