"""The potential that moves a density, and what can be asked of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

# Steps of a stochastic flow over the whole duration of the data, where none are asked for.
SDE_STEPS = 256


class Trajectories(NamedTuple):
    """Samples moved by a model.

    Attributes:
        t: times, (T,).
        x: positions, (T, N, d).
        log_weight: logarithm of the weights of the samples, (T, N), zero at the start; None where
            mass is conserved.
    """

    t: Float[Tensor, "time"]
    x: Float[Tensor, "time n dim"]
    log_weight: Float[Tensor, "time n"] | None = None

    @property
    def mass(self) -> Float[Tensor, "time"]:
        """Total mass at each time, relative to that of the samples at the start."""
        if self.log_weight is None:
            return self.x.new_ones(len(self.x))
        n = self.log_weight.shape[1]
        return (self.log_weight.logsumexp(1) - math.log(n)).exp()

    @property
    def weights(self) -> Float[Tensor, "time n"]:
        """Weights of the samples, with sum one at each time."""
        if self.log_weight is None:
            return self.x.new_full(self.x.shape[:2], 1 / self.x.shape[1])
        return self.log_weight.softmax(1)


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

    Samples move by ``dX = grad s dt + sigma dW``, and their weights by ``d log w / dt = lambda s``
    with the growth penalty lambda: without noise and growth, an ordinary flow.

    In the units of the network ``s = <x, h(t, x)> + h_0(t, x)`` with one network for ``h`` and
    ``h_0``: the first term lets s grow quadratically, as between Gaussians, and the second lets
    it take any value at the origin. All public methods speak the units of the data.

    Args:
        scale: units of the data.
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.
        sigma: strength of the noise, in length / time^(1/2).
        growth_penalty: lambda, growth rate per unit of potential, in 1 / length^2; None
            where mass is conserved.

    Raises:
        ValueError: ``sigma`` is negative, or ``growth_penalty`` not positive.
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
        if not 0.0 <= sigma < math.inf:
            raise ValueError(f"sigma must be a finite number, not negative; got {sigma!r}")
        if growth_penalty is not None and not 0.0 < growth_penalty < math.inf:
            raise ValueError(
                f"growth_penalty must be positive and finite, or None; got {growth_penalty!r}"
            )
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
        """Potential ``s(t, x)``, in length^2 / time; up to a function of time without growth.

        Args:
            t: one time, or one per sample (n,).
            x: positions (n, d).
        """
        scale = self.scale
        with torch.no_grad():
            s = self(*self._inward(t, x))
        return s.to(x) * (scale.length**2 / scale.duration)

    def velocity(self, t: float | Tensor, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Velocity ``grad s(t, x)``, in length / time; arguments as in ``potential``.

        With noise it is the drift of ``dX = grad s dt + sigma dW``.
        """
        return self._slopes(t, x)[0]

    def growth(self, t: float | Tensor, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n"]:
        """Growth rate ``d log w / dt = lambda s`` of the mass at x, per time; arguments as above.

        Zero where the Lagrangian conserves mass.
        """
        if self.growth_penalty is None:
            self._check(x)
            return x.new_zeros(len(x))
        return self.growth_penalty * self.potential(t, x)

    def action(self) -> Action:
        """Action of the fitted curve, as measured on the training samples after the fit.

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
        """Move samples along the flow, and their weights with them.

        Args:
            x0: positions at ``t[0]``, (N, d).
            t: times (T,), increasing or decreasing; increasing where the flow has noise, which
                has no way back: for one, fit the snapshots at negated times.
            n_steps: constant steps between neighbouring times (rk4; sra1 with noise, where steps
                are the next smaller power of two in units of time). By default the steps of an
                ordinary flow are adaptive (dopri5, tolerance 1e-5 of the length scale), and with
                noise there are 256 over the duration of the data.
            seed: seed of the noise.

        Raises:
            ValueError: wrong shapes, values that are not finite, or noise backwards in time.
        """
        self._check(x0)
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {n_steps}")
        grows = self.growth_penalty is not None
        state = (x0, x0.new_zeros(len(x0))) if grows else x0

        def slopes(t: Tensor, state: Any) -> Any:
            return self._slopes(t, state[0]) if grows else self._slopes(t, state)[0]

        if self.sigma > 0:
            y = self._noisy(slopes, state, t, n_steps, seed)
        elif n_steps is None:
            tolerance = 1e-5 * self.scale.length
            y = integrate(slopes, state, t, "dopri5", rtol=1e-5, atol=tolerance).y
        else:
            fine = [_between(a, b, n_steps)[:-1] for a, b in zip(t[:-1], t[1:], strict=True)]
            y = integrate(slopes, state, torch.cat([*fine, t[-1:]]), "rk4").y
            y = tuple(part[::n_steps] for part in y) if grows else y[::n_steps]
        return Trajectories(t, *y) if grows else Trajectories(t, y)

    def predict(
        self,
        x: Float[Tensor, "n dim"],
        start: float,
        times: Sequence[float] | Float[Tensor, "time"],
        n_steps: int | None = None,
        seed: int = 0,
    ) -> Trajectories:
        """Where samples of one time are at other times, before or after it, in any order.

        Args:
            x: positions (N, d) at the time ``start``, from anywhere.
            start: time of the samples.
            times: (T,) times to move them to.
            n_steps: see ``trajectories``.
            seed: see ``trajectories``.

        Returns:
            Positions at ``times``, in their order; log-weights relative to ``start``.

        Raises:
            ValueError: as ``trajectories``.
        """
        times = torch.as_tensor(times, dtype=torch.float64, device=x.device)
        if times.ndim != 1 or not len(times) or not bool(torch.isfinite(times).all()):
            raise ValueError(f"times must be one or more finite numbers; got {times.tolist()}")
        where, weight = x.repeat(len(times), 1, 1), x.new_zeros(len(times), len(x))
        for side in (times > start, times < start):
            if not bool(side.any()):
                continue
            wanted, row = times[side].unique(return_inverse=True)
            if float(wanted[0]) < start:
                wanted, row = wanted.flip(0), len(wanted) - 1 - row
            stops = torch.cat([wanted.new_tensor([start]), wanted])
            moved = self.trajectories(x, stops, n_steps, seed)
            where[side] = moved.x[1 + row]
            if moved.log_weight is not None:
                weight[side] = moved.log_weight[1 + row]
        return Trajectories(times, where, None if self.growth_penalty is None else weight)

    def save(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write the model as safetensors, with its settings as JSON metadata."""
        config: dict[str, Any] = {
            "scale": asdict(self.scale),
            "width": self.width,
            "depth": self.depth,
            "sigma": self.sigma,
            "growth_penalty": self.growth_penalty,
        }
        action = self.measured_action
        config["action"] = None if action is None else list(action)
        save_model(path, self, config, units=UNITS, extra=extra)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.scale.dim:
            raise ValueError(f"x must have shape (n, {self.scale.dim}); got {tuple(x.shape)}")

    def _slopes(self, t: float | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and growth rate, in units of the data."""
        with torch.no_grad():
            s, _, v = self.derivatives(*self._inward(t, x), create_graph=False)
        scale, rate = self.scale, self.growth_penalty or 0.0
        growth = s.to(x) * (rate * scale.length**2 / scale.duration)
        return v.to(x) * (scale.length / scale.duration), growth

    def _noisy(
        self, slopes: Callable[..., Any], state: Any, t: Tensor, n_steps: int | None, seed: int
    ) -> Any:
        """Solution of the stochastic equation at the times t."""
        if len(t) > 1 and float(t[1]) < float(t[0]):
            raise ValueError(
                "noise cannot be undone, so that a flow with noise is not run backwards in time: "
                "fit the snapshots at negated times for a way back; got times from "
                f"{float(t[0]):g} to {float(t[-1]):g}"
            )
        diffusion = self.sigma if isinstance(state, Tensor) else (self.sigma, 0.0)
        dt = self.scale.duration / SDE_STEPS
        if n_steps is not None:
            dt = float(t.diff().min()) / n_steps
        return integrate(SDE(slopes, diffusion), state, t, "sra1", dt=dt, seed=seed).y

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
    "growth": "1 / time",
    "sigma": "length / time^(1/2)",
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


def _between(start: Tensor, end: Tensor, n_steps: int) -> Tensor:
    """Times of constant steps from ``start`` to ``end``, both included."""
    return torch.linspace(
        float(start), float(end), n_steps + 1, dtype=start.dtype, device=start.device
    )


def _build(config: dict[str, Any]) -> ActionPotential:
    scale = Scale(**{**config["scale"], "center": tuple(config["scale"]["center"])})
    model = ActionPotential(
        scale,
        config["width"],
        config["depth"],
        sigma=config["sigma"],
        growth_penalty=config["growth_penalty"],
    )
    if config["action"] is not None:
        model.measured_action = Action(*config["action"])
    return model
