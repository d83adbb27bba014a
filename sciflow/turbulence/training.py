"""Starts of many decays as one table, and the loss of an ensemble on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import nn

from sciflow.shapes import Float, Tensor
from sciflow.train import Loss
from sciflow.turbulence.features import (
    ENCODERS,
    history_window,
    of_history,
    of_skewness,
    of_spectrum,
    surroundings,
)
from sciflow.turbulence.model import DecayODE, tau_grid
from sciflow.turbulence.runs import DecayRun

# Lengths in tau of the histories that the fit sees.
_WINDOW = (0.1, 1.2)
# Part of the starts for each encoder: little for what can tell little.
_SHARES = {"bare": 0.1, "skewness": 0.22, "spectrum": 0.25, "both": 0.28, "history": 0.15}
# Softens ln(theta) at the start, where theta is 0.
_SOFT = 0.03


@dataclass(frozen=True)
class Starts:
    """Forecasts to be learned: N starts of runs, what is known there, and what follows.

    Attributes:
        run: number of the run of each start, (N,).
        around: `surroundings`, (N, 3).
        known: numbers of each encoder, name to (N, size); NaN rows where a run lacks them.
        eps: ln(eps / eps_0) on the grid of tau, (N, T).
        theta: time in units of k_0 / eps_0 on the grid, (N, T).
        there: whether the run reaches that far, (N, T).
    """

    run: Tensor
    around: Tensor
    known: dict[str, Tensor]
    eps: Tensor
    theta: Tensor
    there: Tensor


def gather_starts(runs: Sequence[DecayRun], per_run: int, horizon: float, seed: int = 0) -> Starts:
    """Starts at ``per_run`` times of every run: the first one, and random ones, mostly early."""
    generator = np.random.default_rng(seed)
    grid = tau_grid(horizon).numpy()
    columns: dict[str, list[Tensor]] = {name: [] for name in ENCODERS if name != "both"}
    number, around, eps, theta, there = [], [], [], [], []
    for n, run in enumerate(runs):
        rows = torch.from_numpy(_choose(run.tau.numpy(), per_run, generator))
        k, e = run.k[rows], run.eps[rows]
        nu = torch.full_like(k, run.nu)
        box = None if run.box is None else torch.full_like(k, run.box)
        cut = None if run.k_max is None else torch.full_like(k, run.k_max)
        around.append(surroundings(k, e, nu, box, cut))
        number.append(torch.full((len(rows),), n))
        missing = torch.full((len(rows), 1), torch.nan, dtype=torch.float64)
        columns["bare"].append(missing[:, :0])
        if run.skewness is not None and run.palinstrophy is not None:
            known = of_skewness(k, e, nu, run.skewness[rows], run.palinstrophy[rows])
        else:
            known = missing.expand(-1, ENCODERS["skewness"])
        columns["skewness"].append(known)
        if run.spectrum is not None and run.kappa is not None:
            known = of_spectrum(k, e, nu, run.kappa, run.spectrum[rows])
        else:
            known = missing.expand(-1, ENCODERS["spectrum"])
        columns["spectrum"].append(known)
        windows = generator.uniform(*_WINDOW, size=len(rows))
        past = []
        for row, length in zip(rows.tolist(), windows, strict=True):
            if float(run.tau[row]) < 0.1:
                past.append(missing[0].expand(ENCODERS["history"]))
            else:
                a, b = history_window(run.k, run.eps, row, float(length))
                past.append(of_history(a[None], b[None])[0])
        columns["history"].append(torch.stack(past))
        tau = run.tau.numpy()
        log_eps = CubicSpline(tau, run.eps.log().numpy())
        time = CubicSpline(tau, run.t.numpy())
        for i in rows.tolist():
            at = np.minimum(tau[i] + grid, tau[-1])
            eps.append(torch.from_numpy(log_eps(at) - float(run.eps[i].log())))
            unit = float(run.k[i] / run.eps[i])
            theta.append(torch.from_numpy((time(at) - float(run.t[i])) / unit))
            there.append(torch.from_numpy(tau[i] + grid <= tau[-1] + 1e-9))
    everything = {name: torch.cat(parts) for name, parts in columns.items()}
    everything["both"] = torch.cat([everything["skewness"], everything["spectrum"]], 1)
    return Starts(
        torch.cat(number), torch.cat(around), everything,
        torch.stack(eps), torch.stack(theta).clamp_min(0.0), torch.stack(there),
    )  # fmt: skip


def _choose(tau: np.ndarray, number: int, generator: np.random.Generator) -> np.ndarray:
    """Rows of starts. Early ones differ more from each other, and forecasts matter there."""
    last = max(2, int(np.searchsorted(tau, tau[-1] - 0.3)))
    spacing = np.gradient(tau)[1:last]
    weight = spacing / (tau[1:last] + 0.15)
    number = min(number - 1, last - 1)
    chosen = generator.choice(np.arange(1, last), number, replace=False, p=weight / weight.sum())
    return np.sort(np.concatenate([[0], chosen]))


class StartSource:
    """Draws starts: for each member of the ensemble from its own bootstrap of the runs.

    Args:
        starts: the table.
        members: number of members M; a batch of n is n / M starts for each.
        weight: relative weight of each run, (R,).
        seed: of the bootstraps.
    """

    def __init__(self, starts: Starts, members: int, weight: Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = len(weight)
        rows = torch.bincount(starts.run, minlength=count).clamp_min(1)
        tables = []
        for _ in range(members):
            times = torch.bincount(
                torch.randint(count, (count,), generator=generator), minlength=count
            )
            # One part in four of the plain table keeps every regime in every member.
            w = (0.25 + 0.75 * times.double()) * weight / rows
            tables.append(w[starts.run])
        self.starts, self.members, self.tables = starts, members, torch.stack(tables)
        self.device = torch.device("cpu")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Row numbers of n starts, member by member, (n,)."""
        share = n // self.members
        return torch.multinomial(self.tables, share, True, generator=generator).reshape(-1)


class DecayLoss(nn.Module):
    """Squared errors of ln eps and ln t along tau, over a horizon that grows with the steps.

    Every member sees every kind of knowledge: the starts of a batch are dealt out to the encoders.

    Args:
        model: the ensemble.
        starts: the table that batches of row numbers refer to.
        horizon: last tau of the first and of the final updates.
        steps: number of updates until the horizon is full.
        noise: standard deviation of the noise on what is known.
    """

    def __init__(
        self,
        model: DecayODE,
        starts: Starts,
        horizon: tuple[float, float],
        steps: int,
        noise: float = 0.02,
    ) -> None:
        super().__init__()
        self.model = model
        self.horizon, self.steps, self.noise = horizon, steps, noise
        self.generator: torch.Generator | None = None
        self.updates: Tensor
        self.around: Tensor
        self.eps: Tensor
        self.theta: Tensor
        self.there: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        table = {"around": starts.around, "eps": starts.eps, "there": starts.there}
        table["theta"] = (starts.theta + _SOFT).log()
        table |= {f"known_{name}": x for name, x in starts.known.items()}
        for name, x in table.items():
            self.register_buffer(name, x, persistent=False)
        self.names = [name for name in ENCODERS if model.memory] or ["bare"]

    def forward(self, batch: Tensor) -> Loss:
        """Mean squared errors of the rows of the table."""
        model, M = self.model, self.model.members
        rows = batch.view(M, -1)
        around = self.around[rows]
        z, valid = self._memory(rows, around)
        done = min(1.0, float(self.updates) / max(1, self.steps))
        end = self.horizon[0] + (self.horizon[1] - self.horizon[0]) * done
        tau = tau_grid(end)
        if self.training:
            self.updates += 1
        y = model(tau, around, z)
        T = len(tau)
        weight = (self.there[rows][..., :T] & valid[..., None]).permute(2, 0, 1)
        e = y[..., 0] - self.eps[rows][..., :T].permute(2, 0, 1)
        t = (y[..., 1] + _SOFT).log() - self.theta[rows][..., :T].permute(2, 0, 1)
        total = weight.sum().clamp_min(1)
        loss_e = (_robust(e) * weight).sum() / total
        loss_t = (_robust(t) * weight).sum() / total
        terms = {"eps": loss_e.detach().sqrt(), "time": loss_t.detach().sqrt()}
        return Loss(loss_e + loss_t, terms)

    def _memory(self, rows: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded starts, and which of them their encoder could serve; both (M, B, ...)."""
        counts = _deal(rows.shape[1], [_SHARES[name] for name in self.names])
        parts, valid = [], []
        for name, some, near in zip(
            self.names, rows.split(counts, 1), around.split(counts, 1), strict=True
        ):
            known = getattr(self, f"known_{name}")[some]
            fine = torch.isfinite(known).all(-1)
            known = torch.where(fine[..., None], known, 0.0)
            if self.training and self.noise:
                draw = torch.randn(
                    known.shape, generator=self.generator, device=known.device, dtype=known.dtype
                )
                known = known + self.noise * draw
            parts.append(self.model.encode(name, near, known))
            valid.append(fine)
        return torch.cat(parts, 1), torch.cat(valid, 1)


def _deal(n: int, shares: list[float]) -> list[int]:
    """``n`` starts dealt out in these shares."""
    ends = np.rint(n * np.cumsum(shares) / np.sum(shares)).astype(int)
    return np.diff(ends, prepend=0).tolist()


def _robust(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half a square near zero, a line beyond .3: a wild start does not rule a batch."""
    return torch.nn.functional.huber_loss(x, torch.zeros_like(x), reduction="none", delta=0.3)
