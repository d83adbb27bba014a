"""Natural gradient by Kronecker factors of the Fisher matrix, for large networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from sciflow.shapes import Float, Tensor
from sciflow.train.engine import Engine
from sciflow.train.natural import NaturalUpdate, loss_of, surrogate_gradients
from sciflow.train.objective import Loss


class _Block(NamedTuple):
    """Moments of the per-sample gradients G (m, n) of one parameter, a stack of s matrices."""

    left: Float[Tensor, "s m m"]  # E[G G^T]
    right: Float[Tensor, "s n n"]  # E[G^T G]
    mean: Float[Tensor, "s m n"]  # E[G]

    def centred(self) -> _Block:
        """The same of G - E[G]."""
        left = self.left - self.mean @ self.mean.mT
        right = self.right - self.mean.mT @ self.mean
        return _Block(left, right, torch.zeros_like(self.mean))


class KroneckerFisher(NaturalUpdate):
    """Natural gradient by a block for each matrix of parameters; takes any gradient.

    A block of the Fisher matrix is ``E[G G^T] x E[G^T G] / E|G|^2`` with G the centred gradient of
    log q of one sample: exact where the block is a Kronecker product, and otherwise one power
    iteration towards the nearest one (Morwani et al., arXiv:2406.17748, proposition 1). Weights
    that several electrons or positions share need no special case. Vectors have a dense block.
    The damping is exact, by the eigenvectors of both factors. Samples enter in chunks, so that
    their gradients never are in memory together.

    Args:
        lr: rate at the start.
        delay: steps after which the rate has halved: lr / (1 + k / delay).
        damping: added to the eigenvalues of the Fisher matrix.
        memory: decay of the averages of the factors per step, in [0, 1).
        refresh: steps between eigenvalue decompositions; the first ten steps have one each.
        trust: largest Euclidean length of a step, at the start.
        trust_delay: steps after which it has halved: trust / (1 + k / trust_delay).
        chunk: samples whose gradients are in memory together.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self,
        lr: float = 0.1,
        delay: float = 500.0,
        damping: float = 4e-3,
        memory: float = 0.95,
        refresh: int = 10,
        trust: float = 0.3,
        trust_delay: float = 100.0,
        chunk: int = 512,
    ) -> None:
        super().__init__(lr, delay, damping, trust, trust_delay)
        if not 0 <= memory < 1:
            raise ValueError(f"memory must be in [0, 1), got {memory}")
        for name, value in (("refresh", refresh), ("chunk", chunk)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.memory, self.refresh, self.chunk = memory, refresh, chunk
        self.blocks: list[_Block] = []
        self.bases: list[tuple[Tensor, Tensor, Tensor]] = []

    def step(self, objective: Any, batch: Tensor) -> Loss:
        """One update; the loss is that before it."""
        engine = Engine.start(str(batch.device))
        direction = objective.direction(batch)
        gradient = surrogate_gradients(objective, direction)
        new = self._moments(objective, batch, direction.residual, gradient)
        engine.mean_([*gradient, *(part for block in new for part in block)])
        new = [block.centred() for block in new]
        keep = min(self.memory, self.steps / (self.steps + 1))  # an even average at the start
        self.blocks = [
            _Block(*(a.to(b).lerp(b, 1 - keep) for a, b in zip(old, block, strict=True)))
            for old, block in zip(self.blocks or new, new, strict=True)
        ]
        if not self.bases or self.steps < 10 or self.steps % self.refresh == 0:
            self.bases = [_eigen(block) for block in self.blocks]
        parts = [
            self._solve(_matrices(g[None])[0], *basis).flatten()
            for g, basis in zip(gradient, self.bases, strict=True)
        ]
        return loss_of(direction, self.move(objective, -torch.cat(parts)))

    def _moments(
        self, objective: Any, batch: Tensor, residual: Tensor, gradient: list[Tensor]
    ) -> list[_Block]:
        """Moments over the batch; adds the mean of residual times gradient to ``gradient``."""
        n = len(batch)
        blocks: list[_Block] = []
        for x, r in zip(batch.split(self.chunk), residual.split(self.chunk), strict=True):
            found = self.gradients(objective, x)
            for total, g in zip(gradient, found, strict=True):
                total += torch.tensordot(r.to(g), g, 1) / n
            part = []
            for g in map(_matrices, found):
                side = g.permute(1, 3, 0, 2).flatten(2)  # (s, n, B m)
                top = g.permute(1, 2, 0, 3).flatten(2)  # (s, m, B n)
                part.append(_Block(top @ top.mT / n, side @ side.mT / n, g.sum(0) / n))
            blocks = (
                [_Block(*map(torch.add, a, b)) for a, b in zip(blocks, part, strict=True)]
                if blocks
                else part
            )
        return blocks

    def _solve(self, g: Tensor, u: Tensor, v: Tensor, size: Tensor) -> Tensor:
        """The damped inverse of a block times g (s, m, n)."""
        inner = u.mT @ g.to(u) @ v / (size + self.damping)
        return (u @ inner @ v.mT).to(g)

    def state_dict(self) -> dict[str, Any]:
        """The averaged factors, their eigenvectors in use, and the number of steps."""
        blocks = [list(block) for block in self.blocks]
        return {"blocks": blocks, "bases": [list(b) for b in self.bases], "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.blocks = [_Block(*block) for block in state["blocks"]]
        self.bases = [tuple(basis) for basis in state["bases"]]
        self.steps = state["steps"]


def _matrices(g: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch s m n"]:
    """Gradients as stacks of matrices; a vector is one row."""
    while g.ndim < 4:
        g = g.unsqueeze(1)
    return g.flatten(1, -3)


def _eigen(block: _Block) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvectors of both factors, and the eigenvalues (s, m, n) of their product."""
    left, right = block.left.double(), block.right.double()
    trace = left.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=1e-300)[:, None, None]
    a, u = torch.linalg.eigh(left)
    b, v = torch.linalg.eigh(right)
    size = a.clamp(min=0)[:, :, None] * b.clamp(min=0)[:, None, :] / trace
    dtype = block.left.dtype
    return u.to(dtype), v.to(dtype), size.to(dtype)
