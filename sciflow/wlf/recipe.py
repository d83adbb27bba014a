"""Fitting a Wasserstein Lagrangian flow to snapshots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sciflow.am import ActionPotential, Lagrangian
from sciflow.am.lagrangians import Potential, find_lagrangian
from sciflow.am.objective import ActionMatching
from sciflow.am.path import Bend, ConditionalPath
from sciflow.am.recipe import FitOptions as ActionMatchingOptions
from sciflow.am.recipe import Problem, prepare, train
from sciflow.train import ParamGroup, Snapshots
from sciflow.wlf.least_action import minimise_action
from sciflow.wlf.objective import WassersteinLagrangianFlow
from sciflow.wlf.rectify import rectified


@dataclass(frozen=True, kw_only=True)
class FitOptions(ActionMatchingOptions):
    """Settings of a fit of a Wasserstein Lagrangian flow."""

    path: Literal["least-action", "closed-form", "learned"] = "least-action"
    """Path between partners: "least-action" in closed form where there is one, else found by
    minimising the action of each pair directly; "closed-form" leaves potential energy and metric
    out; "learned" starts in closed form and is bent by the min-max game of the paper."""
    path_steps: int = 1000
    """Updates of the path where its action is minimised, before the potential is fitted."""
    path_lr: float | None = None
    """Learning rate of the path: None takes 5e-3 where the action is minimised, and 3e-5 in the
    game, where the potential has to follow the path."""
    path_width: int = 64
    """Width of the hidden layers of the path."""
    path_depth: int = 3
    """Number of hidden layers of the path."""
    rectify: int = 0
    """How often partners are found anew, by the flow fitted so far, before it is fitted again. One
    round pays in many dimensions, where optimal partners among samples are far from those of the
    populations. Not with growth, nor in the game."""
    inner_moves: int = 0
    """Moves of path points up the Hamiltonian before the potential sees them, in the game; more
    than 0 needs the estimator "dual"."""
    inner_step: float = 0.01
    """Size of such a move, in units of the spread of the data."""


def fit(
    snapshots: Snapshots,
    lagrangian: str | Lagrangian = "ot",
    hold_out: Iterable[int] = (),
    *,
    potential: Potential | None = None,
    **options: Any,
) -> ActionPotential:
    """Fit the flow of least action through snapshots.

    Neklyudov et al., "A Computational Framework for Solving Wasserstein Lagrangian Flows",
    arXiv:2310.10649. Samples of neighbouring snapshots are paired by the optimal coupling of the
    Lagrangian and joined by its paths of least action; a potential, whose gradient is the
    velocity, is then fitted to the curve of densities so made. ``path="learned"`` plays the
    game of the paper instead; see ``WassersteinLagrangianFlow``.

    Args:
        snapshots: samples at two or more times; masses count where the flow may grow.
        lagrangian: name in ``LAGRANGIANS``, or a ``Lagrangian`` of the user's own.
        hold_out: indices of time points that the fit must not see.
        potential: potential energy ``U(t, x)`` of the user, added to the Lagrangian; see there.
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
    if settings.path not in ("least-action", "closed-form", "learned"):
        raise ValueError(
            f"path must be 'least-action', 'closed-form' or 'learned'; got {settings.path!r}"
        )
    row = find_lagrangian(lagrangian, settings.sigma, settings.growth_penalty, potential)
    if row.metric is not None and settings.path == "learned":
        raise ValueError("the game knows no metric: use path='least-action'")
    if settings.inner_moves and settings.path != "learned":
        raise ValueError("inner_moves belong to the game: use path='learned'")
    if settings.rectify < 0:
        raise ValueError(f"rectify must not be negative; got {settings.rectify}")
    if settings.rectify and (row.growth_penalty is not None or settings.path == "learned"):
        raise ValueError("rectify needs a flow without growth, and not path='learned'")
    problem = prepare(snapshots, hold_out, settings, row)
    inner, model, times = problem.lagrangian, problem.model, problem.source.times
    bend = None
    if settings.path == "learned" or (settings.path == "least-action" and row.bends):
        dim = model.scale.dim
        bend = Bend(dim, settings.path_width, settings.path_depth, problem.generator)
    path = ConditionalPath(inner, bend)
    if settings.path == "learned":
        game = WassersteinLagrangianFlow(
            model,
            inner,
            path,
            settings.estimator,
            settings.inner_moves,
            settings.inner_step,
            times=times,
        )
        lr = 3e-5 if settings.path_lr is None else settings.path_lr
        players = [ParamGroup("model"), ParamGroup("path", lr=lr, maximize=True)]
        return train(problem, game, settings, players)

    def stage(problem: Problem, settings: FitOptions) -> ActionPotential:
        if bend is not None:
            minimise_action(path, problem.source, settings.path_steps, settings)
        objective = ActionMatching(problem.model, inner, path, settings.estimator, times=times)
        return train(problem, objective, settings, "adam")

    for _ in range(settings.rectify):
        model = stage(problem, replace(settings, out=None, resume=False))
        if model.interrupted:
            return model
        source = rectified(model, problem.source, problem.snapshots, settings.seed)
        problem = replace(problem, source=source, model=model)
    return stage(problem, settings)
