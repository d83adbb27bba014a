"""What a user would do instead: k-epsilon models of several kinds, and a recurrent network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from sciflow.integrators import integrate
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss, Samples, Trainer
from sciflow.turbulence.features import scaled, surroundings
from sciflow.turbulence.runs import DecayRun

#: C_eps2 of the standard model.
STANDARD = 1.92


def k_epsilon(
    k0: float, eps0: float, t: Float[Tensor, " time"], C2: float = STANDARD
) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
    """K and eps of dk/dt = -eps, d eps/dt = -C2 eps^2/k: power laws, in closed form.

    Args:
        k0: kinetic energy at ``t[0]``.
        eps0: dissipation rate at ``t[0]``.
        t: times.
        C2: constant of the model, above 1.

    Source: Launder and Spalding, Comput. Methods Appl. Mech. Eng. 3, 269 (1974).
    """
    if not C2 > 1:
        raise ValueError(f"C2 must be above 1; got {C2}")
    n = 1 / (C2 - 1)
    x = 1 + (t - t[0]) * eps0 / (n * k0)
    return k0 * x**-n, eps0 * x ** (-n - 1)


def low_reynolds_k_epsilon(
    k0: float, eps0: float, nu: float, t: Float[Tensor, " time"], C2: float = STANDARD
) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
    """The same with C2 (1 - .3 exp(-Re_T^2)), the damping at small Reynolds numbers.

    Source: Launder and Sharma, Lett. Heat Mass Transfer 1, 131 (1974).
    """

    def field(s: Tensor, y: Tensor) -> Tensor:
        k, eps = y.exp().unbind(-1)
        damped = C2 * (1 - 0.3 * torch.exp(-((k**2 / (nu * eps)) ** 2)))
        return torch.stack([-eps / k, -damped * eps / k], -1)

    y0 = torch.tensor([math.log(k0), math.log(eps0)], dtype=torch.float64)
    y = integrate(field, y0, t.double(), rtol=1e-8, atol=1e-10).y.exp()
    return y[:, 0], y[:, 1]


def relative_l2(
    t: Float[Tensor, " time"], found: Float[Tensor, " time"], truth: Float[Tensor, " time"]
) -> float:
    """Relative error in the L2 norm over physical time (trapezoids)."""
    norm = torch.trapezoid(truth**2, t)
    return float((torch.trapezoid((found - truth) ** 2, t) / norm).sqrt())


def oracle(run: DecayRun) -> float:
    """The constant C2 that fits this very run best in eps: no forecast can know it."""

    def error(C2: float) -> float:
        _, eps = k_epsilon(float(run.k[0]), float(run.eps[0]), run.t, C2)
        return relative_l2(run.t, eps, run.eps)

    return _best(error)


def calibrated(runs: Sequence[DecayRun]) -> float:
    """The constant C2 with the least mean error in eps over runs."""

    def error(C2: float) -> float:
        total = 0.0
        for run in runs:
            _, eps = k_epsilon(float(run.k[0]), float(run.eps[0]), run.t, C2)
            total += relative_l2(run.t, eps, run.eps)
        return total

    return _best(error)


def _best(error: Callable[[float], float]) -> float:
    # The error may have two valleys: look everywhere first.
    grid = np.linspace(1.005, 2.5, 60)
    start = int(np.argmin([error(x) for x in grid]))
    bounds = (grid[max(0, start - 1)], grid[min(len(grid) - 1, start + 1)])
    return float(minimize_scalar(error, bounds=bounds, method="bounded").x)


class RecurrentDecay(nn.Module):
    """A long short-term memory network that steps ln eps along even steps of tau.

    Args:
        step: step of tau.
        width: width of the memory.
        generator: source of the initial weights.
    """

    def __init__(
        self, step: float = 0.05, width: int = 48, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.step, self.width = step, width
        self.cell = nn.LSTMCell(4, width)
        self.out = nn.Linear(width, 1)
        for p in self.parameters():
            nn.init.uniform_(p, -(width**-0.5), width**-0.5, generator=generator)

    def forward(
        self, around: Float[Tensor, "batch 3"], steps: int
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Ln(eps/eps_0), and times in units of k_0/eps_0, at tau = 0, step, 2 step, ..."""
        B = len(around)
        h = c = around.new_zeros(B, self.width)
        g, theta, slope = around.new_zeros(B), around.new_zeros(B), around.new_zeros(B)
        rows, times = [g], [theta]
        for i in range(steps):
            tau = i * self.step
            moved = torch.tensor([2.0, 1.5, 0.0], dtype=around.dtype) * tau
            shift = torch.tensor([1.0, 1.0, 0.25], dtype=around.dtype)
            x = around - moved - shift * g[:, None]
            h, c = self.cell(torch.cat([scaled(x), slope[:, None]], 1), (h, c))
            slope = self.out(h)[:, 0]
            later = g - self.step * (1.8 + slope)
            # The trapezoid of k / eps over tau.
            theta = theta + self.step / 2 * (
                torch.exp(-tau - g) + torch.exp(-(tau + self.step) - later)
            )
            g = later
            rows.append(g)
            times.append(theta)
        return torch.stack(rows, 1), torch.stack(times, 1)


class _RecurrentLoss(nn.Module):
    def __init__(self, model: RecurrentDecay) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> Loss:
        around, target, there = batch
        found, _ = self.model(around, target.shape[1] - 1)
        error = ((found - target) ** 2 * there).sum() / there.sum()
        return Loss(error)


def fit_recurrent(
    runs: Sequence[DecayRun], steps: int = 600, seed: int = 0, progress: bool = True
) -> RecurrentDecay:
    """Train the recurrent baseline on starts along the same runs as the forecaster.

    Args:
        runs: decays.
        steps: updates.
        seed: of the weights and the draws.
        progress: show a progress bar.
    """
    model = RecurrentDecay(generator=torch.Generator().manual_seed(seed))
    around, target, there = [], [], []
    T = int(3.5 / model.step)
    for run in runs:
        for start in (0.0, 0.3, 0.7, 1.2):
            end = float(run.tau[-1])
            if start > end - 0.5:
                continue
            tau = np.minimum(start + model.step * np.arange(T + 1), end)
            part = run.resample(tau=tau[: 1 + int((end - start) / model.step)])
            around.append(_around(part, 0))
            row = torch.zeros(T + 1, dtype=torch.float64)
            row[: len(part.eps)] = (part.eps / part.eps[0]).log()
            target.append(row)
            there.append((torch.arange(T + 1) < len(part.eps)).double())
    source = Samples(torch.stack(around), torch.stack(target), torch.stack(there))
    trainer = Trainer(
        steps=steps, batch_size=64, lr=3e-3, clip=1.0, seed=seed, device="cpu", progress=progress
    )
    fitted = trainer.fit(_RecurrentLoss(model), source).model
    return cast(RecurrentDecay, fitted).double()


def recurrent_forecast(
    model: RecurrentDecay, run: DecayRun, t: Float[Tensor, " time"]
) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
    """K and eps of the recurrent baseline from the first row of ``run``, at times ``t``."""
    k0, eps0 = float(run.k[0]), float(run.eps[0])
    wanted = (t - t[0]).numpy() * eps0 / k0
    with torch.no_grad():
        steps = 40
        while True:
            g, theta = model(_around(run, 0)[None], steps)
            if float(theta[0, -1]) >= wanted[-1] or steps > 400:
                break
            steps += 20
    tau = model.step * np.arange(steps + 1)
    at = np.interp(wanted, theta[0].numpy(), tau)
    rise = np.interp(at, tau, g[0].numpy())
    return torch.from_numpy(k0 * np.exp(-at)), torch.from_numpy(eps0 * np.exp(rise))


def _around(run: DecayRun, i: int) -> Tensor:
    k, eps = run.k[i], run.eps[i]
    nu = torch.as_tensor(run.nu, dtype=torch.float64)
    box = None if run.box is None else torch.as_tensor(run.box, dtype=torch.float64)
    cut = None if run.k_max is None else torch.as_tensor(run.k_max, dtype=torch.float64)
    return surroundings(k, eps, nu, box, cut)
