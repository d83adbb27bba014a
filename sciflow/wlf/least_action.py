"""Paths of least action between partners, by direct minimisation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from sciflow.am.path import ConditionalPath, PathPoint
from sciflow.am.source import CoupledSnapshots, PathBatch
from sciflow.shapes import Tensor
from sciflow.train import Loss

if TYPE_CHECKING:
    from sciflow.wlf.recipe import FitOptions


class PathAction(nn.Module):
    """Mean action of the paths of a batch, ``m (g |x'|^2 / 2 - U)``.

    Its terms of noise and growth are left out: they do not depend on the bend.

    Each interval is measured in units of its own kinetic energy without the bend, so that long
    and short ones are learned equally well.

    Args:
        path: path with a bend, which is trained.
    """

    def __init__(self, path: ConditionalPath) -> None:
        super().__init__()
        self.model = path

    def forward(self, batch: PathBatch) -> Loss:
        """Mean action of the batch."""
        point: PathPoint = self.model(batch)
        t = self.model.twice(batch.t)
        lagrangian = self.model.lagrangian
        n = len(batch.t)
        # The mirrored drifts of a bridge differ by its noise, which no bend can change.
        velocity = point.velocity
        if lagrangian.sigma:
            mean = 0.5 * (velocity[:n] + velocity[n:])
            velocity = torch.cat([mean, mean])
        kinetic = 0.5 * velocity.square().sum(-1)
        if lagrangian.metric is not None:
            kinetic = lagrangian.metric(point.x) * kinetic
        unit = self.model.twice(self._unit(batch))
        action = point.mass * (kinetic - lagrangian.energy(t, point.x)) / unit
        return Loss(action.mean())

    def _unit(self, batch: PathBatch) -> Tensor:
        """Mean kinetic energy of the chords in the interval of each sample, (n,)."""
        span = batch.t_right - batch.t_left
        energy = ((batch.right - batch.left) / span[:, None]).square().sum(1)
        first = torch.unique(batch.t_left, return_inverse=True)[1]
        total = torch.zeros_like(energy).index_add_(0, first, energy)
        count = torch.zeros_like(energy).index_add_(0, first, torch.ones_like(energy))
        return (total / count.clamp(min=1.0))[first].clamp(min=1e-6)


def minimise_action(
    path: ConditionalPath, source: CoupledSnapshots, steps: int, settings: FitOptions
) -> None:
    """Train the bend of a path, then freeze it.

    Args:
        path: path with a bend.
        source: pairs of samples.
        steps: number of updates.
        settings: of the fit that the path is for; ``path_lr`` is its learning rate.
    """
    lr = 5e-3 if settings.path_lr is None else settings.path_lr
    path.requires_grad_(True)
    stage = replace(settings, steps=steps, lr=lr, out=None, resume=False)
    result = stage.trainer().fit(PathAction(path), source)
    if result.interrupted:  # half a path is no path to fit a potential to
        raise KeyboardInterrupt
    path.load_state_dict(result.model.state_dict())
    path.requires_grad_(False)
