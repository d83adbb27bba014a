"""Flow matching: the field regressed on the velocity of straight lines, without integration."""

from __future__ import annotations

import torch
from torch import nn

from sciflow.cnf.model import ContinuousFlow
from sciflow.errors import DataError, SciflowError, require
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss
from sciflow.train.batch import cast


class FlowMatching(nn.Module):
    """Mean of |f(t, y_t) - (y_1 - y_0)|^2 on the line y_t = (1 - t) y_0 + t y_1.

    The batch is (z, x) or (z, x, context): latent variables and their partners among the data,
    independent (Lipman et al., ICLR 2023, arXiv:2210.02747; Liu, Gong, Liu, arXiv:2209.03003) or
    coupled (see `CoupledPairs`). Angles go the short way round. Half of the times are uniform,
    half 1 - (1 - u)^3: the field changes fastest where the data are.

    Args:
        model: flow to fit.
    """

    def __init__(self, model: ContinuousFlow) -> None:
        super().__init__()
        self.model = model
        self.generator: torch.Generator | None = None

    def forward(self, batch: tuple[Tensor, ...]) -> Loss:
        """Mean squared error of the velocity, in squared units of the flow."""
        z, x, *context = batch
        y = self.model.to_unit(x)
        line = self.model.wrapped(y - z)
        u = torch.rand(len(z), 1, generator=self.generator, dtype=z.dtype, device=z.device)
        half = len(z) // 2
        t = torch.cat([u[:half], 1 - (1 - u[half:]) ** 3])
        off = self.model.field(t[:, 0], z + t * line, *context) - line
        value = off.square().sum(-1).mean()
        return Loss(value, {"velocity_error": value.detach()})


class CoupledPairs:
    """Source of pairs (z, x): draws of the base, coupled to data by minibatch optimal transport.

    Data are dealt into pools; each pool gets as many draws of the base, and the assignment of
    least squared distance by the network simplex of POT (Pooladian et al., ICML 2023,
    arXiv:2304.14772; Tong et al., arXiv:2302.00482). The pairs are made once and drawn from
    after: a transport problem costs far more than a step of training. Small sets of data are
    dealt again until there are ``n_pairs``.

    Args:
        flow: whose base and unit of length count; not changed.
        x: data (N, d).
        n_pairs: number of pairs to make, rounded up to whole pools; None makes as many as there
            are data, but 20 000 at least and 100 000 at most.
        pool: points of one transport problem.
        seed: seed of the deals and draws.

    Raises:
        SciflowError: the solver did not converge.
    """

    def __init__(
        self,
        flow: ContinuousFlow,
        x: Float[Tensor, "n dim"],
        n_pairs: int | None = None,
        pool: int = 256,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator(x.device).manual_seed(seed)
        pool = min(pool, len(x))
        n_pairs = n_pairs or max(20_000, min(100_000, len(x)))
        parts, rows = [], torch.zeros(0, dtype=torch.int64, device=x.device)
        with torch.no_grad():
            for _ in range(-(-n_pairs // pool)):
                if len(rows) < pool:
                    deal = torch.randperm(len(x), generator=generator, device=x.device)
                    rows = torch.cat([rows, deal])
                chosen, rows = x[rows[:pool]], rows[pool:]
                z = flow.base.sample(pool, generator).to(x)
                parts.append((z[assignment(flow, z, flow.to_unit(chosen))], chosen))
        self.z, self.x = (torch.cat(part) for part in zip(*parts, strict=True))

    @property
    def device(self) -> torch.device:
        """Where the pairs live."""
        return self.x.device

    def placed(self, device: torch.device, dtype: torch.dtype) -> CoupledPairs:
        """The same pairs on a device, in ``dtype``."""
        other = object.__new__(CoupledPairs)
        other.z, other.x = (cast(part, device, dtype) for part in (self.z, self.x))
        return other

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ``n`` pairs."""
        rows = torch.randint(len(self.x), (n,), generator=generator, device=self.x.device)
        return self.z[rows], self.x[rows]


class IndependentPairs:
    """Source of pairs (z, x) or (z, x, context) whose latent variables know nothing of the data.

    Args:
        flow: whose base is drawn from.
        x: data (N, d).
        context: of each, (N, c).

    Raises:
        DataError: ``context`` has another number of rows.
    """

    def __init__(
        self, flow: ContinuousFlow, x: Float[Tensor, "n dim"], context: Tensor | None = None
    ) -> None:
        if context is not None and len(context) != len(x):
            raise DataError(f"context has {len(context)} rows, x has {len(x)}")
        self.base = flow.base
        self.data: tuple[Tensor, ...] = (x,) if context is None else (x, context)

    @property
    def device(self) -> torch.device:
        """Where the data live."""
        return self.data[0].device

    def placed(self, device: torch.device, dtype: torch.dtype) -> IndependentPairs:
        """The same data on a device, in ``dtype``."""
        other = object.__new__(IndependentPairs)
        other.base, other.data = self.base, tuple(cast(x, device, dtype) for x in self.data)
        return other

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw ``n`` pairs."""
        x = self.data[0]
        rows = torch.randint(len(x), (n,), generator=generator, device=x.device)
        return (self.base.sample(n, generator).to(x), *(part[rows] for part in self.data))


def assignment(
    flow: ContinuousFlow, z: Float[Tensor, "n dim"], y: Float[Tensor, "n dim"]
) -> Tensor:
    """The row of ``z`` that each row of ``y`` is assigned to, at least squared distance."""
    ot = require("ot")
    difference = flow.wrapped(y[:, None] - z[None]).double()
    cost = difference.square().sum(-1).cpu().numpy()
    plan, log = ot.emd([], [], cost, numItermax=10**7, log=True)
    if log["warning"] is not None:
        raise SciflowError(f"optimal transport did not converge: {log['warning']}")
    # Equal weights of equal number: the plan is a permutation, up to rounding.
    return torch.from_numpy(plan).argmax(1).to(z.device)
