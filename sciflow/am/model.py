"""The potential that moves a density, and what can be asked of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from sciflow.am.scale import Scale
from sciflow.integrators import SDE, integrate
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
    """Action ``integral of E[w (|v|^2/2 + growth^2/(2 growth_penalty) - U)] dt``, w the weights.

    In length^2 / time; for optimal transport it is the kinetic energy times the duration.

    Attributes:
        rollout: from samples moved by the model.
        dual: from the dual objective, a lower bound on the action of any curve with the same
            end points up to the error of its estimate.
    """

    rollout: float
    dual: float

    def certificate(self, exact: float) -> float:
        """Exact action minus dual: half the mean squared error of the velocity (and growth).

        Args:
            exact: action of the exact solution, where it is known; length^2 / time.
        """
        return exact - self.dual


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
        sigma: noise of the motion, in length / sqrt(time).
        growth_penalty: the growth rate is the potential times this, in 1 / length^2; None where
            mass is conserved.
    """

    center: Tensor

    def __init__(
        self,
        scale: Scale,
        width: int = 64,
        depth: int = 3,
        generator: torch.Generator | None = None,
        sigma: float = 0.0,
        growth_penalty: float | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.width, self.depth = scale, width, depth
        self.sigma, self.growth_penalty = sigma, growth_penalty
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
        with torch.set_grad_enabled(create_graph):
            h, pull = self.net.pullback(torch.cat([2 * t[:, None] - 1, x], 1))
            cotangent = torch.cat([x, torch.ones_like(t)[:, None]], 1)
            back = pull(cotangent)
            return (cotangent * h).sum(-1), 2 * back[:, 0], h[:, :-1] + back[:, 1:]

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
        with torch.no_grad():
            _, _, v = self.derivatives(*self._inward(t, x), create_graph=False)
        return v.to(x.dtype) * (self.scale.length / self.scale.duration)

    def growth(self, t: float | Tensor, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n"]:
        """Growth rate of the mass at x, per time; zero where the Lagrangian conserves mass."""
        if self.growth_penalty is None:
            self._inward(t, x)
            return x.new_zeros(len(x))
        return self.growth_penalty * self.potential(t, x)

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
        seed: int = 0,
    ) -> Trajectories:
        """Move samples along the velocity, with its noise and growth where there are any.

        Args:
            x0: positions at ``t[0]``, (N, d).
            t: times (T,), increasing or decreasing; with noise, increasing.
            n_steps: constant steps between neighbouring times (rk4, or sra1 with noise); by
                default the steps are adaptive (dopri5, tolerance 1e-5 of the length scale), or,
                with noise, 200 over the duration of the fit.
            seed: seed of the noise.

        Raises:
            ValueError: wrong shapes, values that are not finite, or noise backwards in time.
        """
        self._check(x0)
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {n_steps}")
        grows = self.growth_penalty is not None
        state = (x0, x0.new_zeros(len(x0))) if grows else x0

        def field(time: Tensor, y: Any) -> Any:
            if not grows:
                return self.velocity(time, y)
            return self.velocity(time, y[0]), self.growth(time, y[0])

        if self.sigma > 0:
            y = self._with_noise(field, state, t, n_steps, seed)
        elif n_steps is None:
            options: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5 * self.scale.length}
            y = integrate(field, state, t, "dopri5", **options).y
        else:
            y = integrate(field, state, _divided(t, n_steps), "rk4").y
            y = (y[0][::n_steps], y[1][::n_steps]) if grows else y[::n_steps]
        return Trajectories(t, *y) if grows else Trajectories(t, y)

    def _with_noise(
        self, field: Any, state: Any, t: Tensor, n_steps: int | None, seed: int
    ) -> Any:
        if len(t) > 1 and float(t[1]) < float(t[0]):
            raise ValueError(
                "the noise of the motion cannot be undone: with sigma > 0 the times must "
                "increase; a fit without noise moves backwards"
            )
        grows = isinstance(state, tuple)
        moving = SDE(field, (self.sigma, 0.0) if grows else self.sigma)
        if n_steps is None:
            return integrate(moving, state, t, "sra1", dt=self.scale.duration / 200, seed=seed).y
        parts = _divided(t, n_steps)
        dt = float(parts.diff().max())
        y = integrate(moving, state, parts, "sra1", dt=dt, seed=seed).y
        return (y[0][::n_steps], y[1][::n_steps]) if grows else y[::n_steps]

    def save(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write the model as safetensors, with its settings as JSON metadata."""
        config: dict[str, Any] = {
            "scale": asdict(self.scale),
            "width": self.width,
            "depth": self.depth,
        }
        config |= {"sigma": self.sigma, "growth_penalty": self.growth_penalty}
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


def _divided(t: Float[Tensor, "time"], n_steps: int) -> Float[Tensor, "more"]:
    """The times with ``n_steps`` equal steps between neighbours."""
    spans = [
        torch.linspace(float(a), float(b), n_steps + 1, dtype=t.dtype, device=t.device)[:-1]
        for a, b in zip(t[:-1], t[1:], strict=True)
    ]
    return torch.cat([*spans, t[-1:]])


UNITS = {
    "t": "time of the data",
    "x": "length of the data",
    "velocity": "length / time",
    "potential": "length^2 / time",
    "growth": "1 / time",
    "sigma": "length / sqrt(time)",
    "growth_penalty": "1 / length^2",
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
    moves = {name: config[name] for name in ("sigma", "growth_penalty") if name in config}
    model = ActionPotential(scale, config["width"], config["depth"], **moves)
    if config["action"] is not None:
        model.measured_action = Action(*config["action"])
    return model
