"""The forecast as a neural ODE in tau = ln(k_0 / k), in which the energy equation is exact."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sciflow.integrators import integrate
from sciflow.shapes import Float, Tensor
from sciflow.turbulence.features import ENCODERS, scaled

# Largest deviation of C_eps2 from its prior that outlives the memory of the start.
_LASTING = 0.4
# Fastest relaxation of a memory variable, per unit of tau: the grid of tau resolves it.
_FASTEST = 8.0
#: Of the steps along tau.
METHOD = "heun"


class MemberMLP(nn.Module):
    """A multilayer perceptron for each member of an ensemble, all of them in one product.

    Args:
        members: number of members M.
        n_in: width of the input, (M, B, n_in).
        n_out: width of the output, (M, B, n_out).
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.
        gain: factor of the initial weights of the last layer.
    """

    def __init__(
        self,
        members: int,
        n_in: int,
        n_out: int,
        width: int,
        depth: int,
        generator: torch.Generator | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = [n_in, *[width] * depth, n_out]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            bound = max(a, 1) ** -0.5 * (gain if i == depth else 1.0)
            weight, bias = torch.empty(members, a, b), torch.empty(members, 1, b)
            self.weights.append(nn.init.uniform_(weight, -bound, bound, generator=generator))
            self.biases.append(nn.init.uniform_(bias, -bound, bound, generator=generator))

    def forward(self, x: Float[Tensor, "members batch n_in"]) -> Float[Tensor, "members batch n"]:
        """Outputs of all members."""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if i < last:
                x = F.silu(x)
        return x


class DecayODE(nn.Module):
    """d ln eps / d tau = -C2, dz / d tau = -a z + b, d theta / d tau = k / eps, for an ensemble.

    C2 = prior(Re_T) + lasting(z, x) + exp(-r tau) fading(z, x) with x = `surroundings`, which are
    known exactly along tau. The prior goes from the final period of decay, where viscosity alone
    acts, to the value of large Reynolds numbers; what departs from it for good is bounded; what
    the start left fades. The memory z starts from an encoder of what is known and relaxes. All
    inputs have no units, so scaling lengths and velocities changes nothing.

    Args:
        members: networks of the ensemble M.
        memory: number of memory variables; 0 is the two-variable model of k and eps alone.
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.

    Source: Portwood et al., arXiv:1911.05180, for the task; the form is that of sciflow.
    """

    def __init__(
        self,
        members: int = 5,
        memory: int = 6,
        width: int = 64,
        depth: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("members", members), ("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if memory < 0:
            raise ValueError(f"memory must not be negative; got {memory}")
        self.config = {"members": members, "memory": memory, "width": width, "depth": depth}
        self.members, self.memory = members, memory
        net: dict[str, Any] = {"width": width, "depth": depth, "generator": generator}
        self.rates = MemberMLP(members, memory + 3, 2 * memory + 2, gain=0.3, **net)
        self.encoders = nn.ModuleDict()
        if memory:
            for name, size in ENCODERS.items():
                self.encoders[name] = MemberMLP(members, size + 3, memory, **net)
        # C2 of large Reynolds numbers within 1.6 ... 2.0, of small ones within 1.4 ... 1.7; the
        # Reynolds number between them; the rate at which the start is forgotten.
        exponents = torch.tensor([[2.0, 1.5, 0.0], [1.0, 1.0, 0.25]])
        self.exponents: Tensor
        self.register_buffer("exponents", exponents, persistent=False)
        self.large = nn.Parameter(torch.full((members, 1), 0.3))
        self.small = nn.Parameter(torch.zeros(members, 1))
        self.between = nn.Parameter(torch.full((members, 1), math.log(10.0)))
        self.forget = nn.Parameter(torch.full((members, 1), 0.5))

    def encode(
        self, name: str, around: Float[Tensor, "members batch 3"], known: Tensor
    ) -> Float[Tensor, "members batch memory"]:
        """Memory variables of what is ``known``, (M, B, numbers of the encoder)."""
        if not self.memory:
            return around.new_zeros(*around.shape[:2], 0)
        return self.encoders[name](torch.cat([scaled(around), known], -1))

    def prior(self, reynolds: Float[Tensor, "members batch"]) -> Float[Tensor, "members batch"]:
        """C2 between viscous and fully developed decay, from ln Re_T."""
        large = 1.6 + 0.4 * torch.sigmoid(self.large)
        small = 1.4 + 0.3 * torch.sigmoid(self.small)
        return small + (large - small) * torch.sigmoid(reynolds - self.between)

    def slope(
        self, tau: Tensor, y: Tensor, around: Tensor
    ) -> tuple[Float[Tensor, "members batch"], Float[Tensor, "members batch state"]]:
        """C2 and dy/dtau of the state y = (ln eps/eps_0, theta, z...) at ``tau``, () or (B,)."""
        g, z = y[..., 0], y[..., 2:]
        # ln Re_T falls by 2 tau + g, the confinement by 1.5 tau + g, ln(k_max eta) by g / 4.
        along, across = self.exponents.unbind(0)
        x = around - tau[..., None] * along - g[..., None] * across
        out = self.rates(torch.cat([scaled(x), z], -1))
        m = self.memory
        a, b = out[..., :m], out[..., m : 2 * m]
        lasting = _LASTING * torch.tanh(out[..., -2])
        fading = torch.exp(-tau * (0.3 + F.softplus(self.forget))) * out[..., -1] * 3
        C2 = self.prior(x[..., 0]) + lasting + fading
        rate = _FASTEST * torch.sigmoid(a - 1.5)
        dz = -rate * z + 3 * torch.tanh(b)
        time = torch.exp(-tau - g)
        return C2, torch.cat([-C2[..., None], time[..., None], dz], -1)

    def forward(
        self,
        tau: Float[Tensor, " steps"],
        around: Float[Tensor, "members batch 3"],
        z: Float[Tensor, "members batch memory"],
    ) -> Float[Tensor, "steps members batch state"]:
        """States along ``tau``, from 0: ln(eps/eps_0), time in units of k_0/eps_0, and memory."""
        y0 = torch.cat([z.new_zeros(*z.shape[:2], 2), z], -1)

        def field(s: Tensor, y: Tensor) -> Tensor:
            return self.slope(s.to(y), y, around)[1]

        return integrate(field, y0, tau, method=METHOD, throw=False).y


def tau_grid(end: float) -> Float[Tensor, " steps"]:
    """Times tau of a solve: short steps at first, where the start still acts, then even ones."""
    steps, at = [0.0], 0.025
    while steps[-1] < end:
        steps.append(steps[-1] + at)
        at = min(1.12 * at, 0.16)
    return torch.tensor(steps, dtype=torch.float64)
