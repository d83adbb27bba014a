"""Partners found anew by a fitted flow: rectified flows and iterative Markovian fitting."""

from __future__ import annotations

import torch

from sciflow.am import ActionPotential
from sciflow.am.source import CoupledSnapshots
from sciflow.shapes import Tensor
from sciflow.train import Snapshots


def rectified(
    model: ActionPotential, source: CoupledSnapshots, snapshots: Snapshots, seed: int
) -> CoupledSnapshots:
    """The snapshots joined by the flow: each sample with where it is carried to, or came from.

    Partners under optimal transport of samples are not those of the populations: in many
    dimensions the nearest of a few thousand points is far away, and the flow fitted to such pairs
    shrinks halfway. A flow along a gradient keeps the marginals and never costs more than the
    pairs it was fitted to (Liu, arXiv:2209.14577), so that pairing by the flow and fitting again
    goes towards the optimal map. With noise, pairing by its stochastic flow is one iteration of
    Markovian fitting (Shi et al., arXiv:2303.16852), whose fixed point is the Schroedinger bridge.

    Args:
        model: fitted to the snapshots.
        source: what it was fitted to.
        snapshots: in the units of the network.
        seed: seed of the noise.

    Returns:
        A source of the new pairs. Without noise half of them end in samples, which are carried
        back; noise has no way back.
    """
    scale = model.scale
    center = snapshots.samples[0].new_tensor(scale.center)
    times = scale.start + scale.duration * snapshots.times

    def carried(x: Tensor, span: Tensor) -> Tensor:
        there = center.to(model.center.device) + scale.length * x.to(model.center.device)
        moved = model.trajectories(there, span.to(there.device), seed=seed).x[-1].cpu()
        return (moved - center) / scale.length

    pairs = []
    for k, (x, y) in enumerate(zip(snapshots.samples[:-1], snapshots.samples[1:], strict=True)):
        before, after = [x], [carried(x, times[[k, k + 1]])]
        if model.sigma == 0:
            before.append(carried(y, times[[k + 1, k]]))
            after.append(y)
        pairs.append((torch.cat(before), torch.cat(after)))
    return source.with_pairs(pairs)
