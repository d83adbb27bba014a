"""The potential that moves a density, and what can be asked of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from sciflow.integrators import integrate
from sciflow.nn import MLP
from sciflow.shapes import Float, Tensor
from sciflow.train import History, load_model, save_model


class Trajectories(NamedTuple):
    """Samples moved by a model.

    Attributes:
        t: times, (T,).
        x: positions, (T, N, d).
        log_weight: logarithm of the weights of the samples, (T, N); None where mass is conserved.
    """

    t: Float[Tensor, "time"]
    x: Float[Tensor, "time n dim"]
    log_weight: Float[Tensor, "time n"] | None = None


class Action(NamedTuple):
    """Kinetic action ``integral of E |v|^2 / 2 dt``, in length^2 / time.

    Attributes:
        rollout: from samples moved by the model.
        dual: from the dual objective, a lower bound on the action of any curve with the same
            end points up to the error of its estimate.
    """

    rollout: float
    dual: float


@dataclass(frozen=True)
class Scale:
    """Units of the data, in which the network sees them.

    Positions are ``(x - center) / length`` and times ``(t - start) / duration``: one length for
    all directions, because the kinetic energy weighs them equally.
    """

    center: tuple[float, ...]
    length: float
    start: float
    duration: float

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.center)


class ActionPotential(nn.Module):
    """Potential ``s(t, x)`` whose gradient is the velocity of a moving density.

    In the units of the network ``s = <x, h(t, x)> + h_0(t, x)`` with one network for ``h`` and
    ``h_0``: the first term lets s grow quadratically, as between Gaussians, and the second lets
    it take any value at the origin. All public methods speak the units of the data.

    Args:
        scale: units of the data.
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.
    """

    center: Tensor

    def __init__(
        self,
        scale: Scale,
        width: int = 64,
        depth: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.width, self.depth = scale, width, depth
        self.measured_action: Action | None = None
        self.history: History | None = None
        self.interrupted = False
        self.net = MLP(scale.dim + 1, scale.dim + 1, width, depth, generator=generator)
        self.register_buffer("center", torch.tensor(scale.center))

    # --- in the units of the network -------------------------------------------------------

    def forward(self, t: Float[Tensor, "n"], x: Float[Tensor, "n dim"]) -> Float[Tensor, "n"]:
        """Potential in the units of the network."""
        h = self.net(torch.cat([2 * t[:, None] - 1, x], 1))
        return (x * h[:, :-1]).sum(-1) + h[:, -1]

    def derivatives(
        self, t: Float[Tensor, "n"], x: Float[Tensor, "n dim"], create_graph: bool
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n dim"]]:
        """``s``, ``d_t s`` and ``grad s`` in the units of the network."""
        with torch.enable_grad():
            t = t if t.requires_grad else t.detach().requires_grad_()
            x = x if x.requires_grad else x.detach().requires_grad_()
            s = self(t, x)
            s_t, velocity = torch.autograd.grad(s.sum(), (t, x), create_graph=create_graph)
        return s, s_t, velocity

    # --- in the units of the data ----------------------------------------------------------

    def potential(self, t: float | Tensor, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n"]:
        """Potential ``s(t, x)``, in length^2 / time; defined up to a function of time.

        Args:
            t: one time, or one per sample (n,).
            x: positions (n, d).
        """
        scale = self.scale
        with torch.no_grad():
            s = self(*self._inward(t, x))
        return s.to(x.dtype) * (scale.length**2 / scale.duration)

    def velocity(self, t: float | Tensor, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Velocity ``grad s(t, x)``, in length / time; arguments as in ``potential``."""
        inner_t, inner_x = self._inward(t, x)
        with torch.enable_grad():
            inner_x = inner_x.detach().requires_grad_()
            (v,) = torch.autograd.grad(self(inner_t.detach(), inner_x).sum(), inner_x)
        return v.to(x.dtype) * (self.scale.length / self.scale.duration)

    def growth(self, t: float | Tensor, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n"]:
        """Growth rate of the mass at x, per time: zero, since this Lagrangian conserves mass."""
        self._inward(t, x)
        return x.new_zeros(len(x))

    def action(self) -> Action:
        """Kinetic action of the fitted curve, as measured on the training samples after the fit.

        Raises:
            ValueError: the model was not made by a fit.
        """
        if self.measured_action is None:
            raise ValueError("this model was not fitted, so its action has not been measured")
        return self.measured_action

    def trajectories(
        self,
        x0: Float[Tensor, "n dim"],
        t: Float[Tensor, "time"],
        n_steps: int | None = None,
    ) -> Trajectories:
        """Move samples along the velocity.

        Args:
            x0: positions at ``t[0]``, (N, d).
            t: times (T,), increasing or decreasing.
            n_steps: constant Runge-Kutta (rk4) steps between neighbouring times; by default the
                steps are adaptive (dopri5, tolerance 1e-5 of the length scale).

        Raises:
            ValueError: wrong shapes, or values that are not finite.
        """
        self._check(x0)
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {n_steps}")
        if n_steps is None:
            options: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5 * self.scale.length}
            return Trajectories(t, integrate(self.velocity, x0, t, "dopri5", **options).y)
        parts = torch.cat(
            [
                torch.linspace(float(a), float(b), n_steps + 1, dtype=t.dtype, device=t.device)[
                    :-1
                ]
                for a, b in zip(t[:-1], t[1:], strict=True)
            ]
            + [t[-1:]]
        )
        return Trajectories(t, integrate(self.velocity, x0, parts, "rk4").y[::n_steps])

    def save(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write the model as safetensors, with its settings as JSON metadata."""
        config = {"scale": asdict(self.scale), "width": self.width, "depth": self.depth}
        action = self.measured_action
        config["action"] = None if action is None else list(action)
        save_model(path, self, config, units=UNITS, extra=extra)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.scale.dim:
            raise ValueError(f"x must have shape (n, {self.scale.dim}); got {tuple(x.shape)}")

    def _inward(self, t: float | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Times (n,) and positions (n, d) in the units and the type of the network."""
        self._check(x)
        dtype, device = self.center.dtype, self.center.device
        t = torch.as_tensor(t, dtype=torch.float64, device=device)
        t = (t - self.scale.start) / self.scale.duration
        x = (x.to(device, dtype) - self.center) / self.scale.length
        return t.to(dtype).expand(len(x)), x


UNITS = {
    "t": "time of the data",
    "x": "length of the data",
    "velocity": "length / time",
    "potential": "length^2 / time",
    "action": "length^2 / time",
}


def load(path: str | Path) -> ActionPotential:
    """Load a model that ``save`` wrote.

    Raises:
        DataError: the file is missing, truncated or of another kind.
    """
    model = load_model(path, _build)
    assert isinstance(model, ActionPotential)
    return model


def _build(config: dict[str, Any]) -> ActionPotential:
    scale = Scale(**{**config["scale"], "center": tuple(config["scale"]["center"])})
    model = ActionPotential(scale, config["width"], config["depth"])
    if config["action"] is not None:
        model.measured_action = Action(*config["action"])
    return model
