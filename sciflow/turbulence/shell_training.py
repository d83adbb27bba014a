"""Fitting the exchange of shells to decays with spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss, Trainer
from sciflow.turbulence.runs import DecayRun
from sciflow.turbulence.shell_grid import ShellGrid
from sciflow.turbulence.shell_starts import belongs, grid_of, held, shell_energies, tilted
from sciflow.turbulence.shells import ShellModel

# Fall of ln k after a Gaussian start from which triple correlations count as developed.
_DEVELOPED = 0.5
# Skewness below which a start is a random field.
_GAUSSIAN = 0.06
# Records of a rollout that are compared.
_RECORDS = 5
# Coarser steps than a forecast takes: their error is below that of the model.
_COARSE, _MOST = 2.0, 4


@dataclass(frozen=True, kw_only=True)
class ShellOptions:
    """Settings of a fit of shells."""

    reach: int = 4
    """Largest distance, in shells, of those that exchange energy."""
    width: int = 24
    """Width of the hidden layers; 0 with reach 1 is Leith's closure."""
    depth: int = 2
    """Number of hidden layers."""
    steps: int = 150
    """Updates of the network."""
    batch_size: int = 16
    """Starts per update."""
    lr: float = 1e-2
    """Learning rate (AdamW), after a warm-up and before a cosine decay to zero."""
    horizon: tuple[float, float] = (0.3, 1.5)
    """Span of tau = ln(k_0 / k) of the first rollouts and of those of the last third."""
    starts: int = 8
    """Starts taken from each run."""
    measured: float = 0.5
    """Part of the starts that simulations and measurements get where there are closures too."""
    max_shells: int = 40
    """Runs with more shells are left out: the cost grows with the largest of a batch."""
    seed: int = 0
    """Seed of all randomness of the fit."""
    out: Path | None = None
    """Folder for log and checkpoints; None writes nothing."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        if not 0 < self.horizon[0] <= self.horizon[1]:
            raise ValueError(f"horizon must be two positive values; got {self.horizon}")
        if not 0 < self.measured < 1:
            raise ValueError(f"measured must be between 0 and 1; got {self.measured}")
        if self.starts < 1 or self.max_shells < 8:
            raise ValueError(
                "starts must be at least 1 and max_shells at least 8; got "
                f"{self.starts} and {self.max_shells}"
            )


def fit_shells(runs: Sequence[DecayRun], **options: Any) -> ShellModel:
    """Fit the exchange of shells to decays with spectra, box and cut.

    Rollouts begin at spectra all along the runs, with the triple correlations of a Gaussian start
    or developed ones, and are compared with later records: the logarithms of k and eps, and those
    of the shell energies by their part of energy and dissipation. Rollouts grow with the updates.

    Args:
        runs: decays to learn from; each needs spectra and ``k_max``.
        options: fields of `ShellOptions`.

    Returns:
        The model, with ``history`` of the fit; after Ctrl-C what had been reached, and
        ``interrupted`` is set.

    Raises:
        DataError: no run with spectra, or a spectrum that is not of its k and eps.
        ValueError: an option out of range.
        TypeError: an unknown option.
    """
    settings = ShellOptions(**options)
    generator = torch.Generator().manual_seed(settings.seed)
    model = ShellModel(settings.reach, settings.width, settings.depth, generator)
    table = gather_shells(runs, settings.max_shells)
    objective = ShellLoss(model, table, settings.horizon, 2 * settings.steps // 3)
    source = _Rows(table, settings.starts, settings.measured)
    trainer = Trainer(
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=settings.lr,
        ema=0.97,
        clip=1.0,
        update="adamw",
        weight_decay=1e-4,
        warmup=settings.steps // 20,
        seed=settings.seed,
        device="cpu",
        dtype="float64",
        out=settings.out,
        progress=settings.progress,
    )
    result = trainer.fit(objective, source)
    fitted: Any = result.model
    fitted.history, fitted.interrupted = result.history, result.interrupted
    return fitted


@dataclass(frozen=True)
class ShellTable:
    """Records of R runs as shells, padded to T records and N shells.

    Attributes:
        u: shell energies, (R, T, N).
        t: times, (R, T); tau, of those: ln(k_0 / k).
        rows: number of records of each run, (R,).
        gaussian: whether a run begins without triple correlations, (R,).
        closure: whether a run is of the closure, (R,).
        top, sizes, nu: of the grids, (R,).
    """

    u: Tensor
    t: Tensor
    tau: Tensor
    rows: Tensor
    gaussian: Tensor
    closure: Tensor
    top: Tensor
    sizes: Tensor
    nu: Tensor


def gather_shells(runs: Sequence[DecayRun], max_shells: int = 200) -> ShellTable:
    """The records of runs that have spectra, a cut, and no more than ``max_shells``.

    Raises:
        DataError: no such run.
    """
    u, t, tau, gaussian, closure, grids = [], [], [], [], [], []
    for run in runs:
        if run.spectrum is None or run.kappa is None or run.k_max is None:
            continue
        nu = torch.tensor(run.nu, dtype=torch.float64)
        box = None if run.box is None else torch.tensor(run.box, dtype=torch.float64)
        grid = grid_of(float(run.kappa[0]), nu, box, run.k_max)
        if grid.n > max_shells:
            continue
        given = shell_energies(grid, run.kappa, run.spectrum)
        # Records whose spectrum is not that of their k and eps are left out.
        energy, rate = held(grid, given, run.k, run.eps)
        fine = belongs(energy) & belongs(rate)
        if not bool(fine[0]) or int(fine.sum()) < _RECORDS:
            continue
        u.append(tilted(grid, given[fine], run.k[fine], run.eps[fine]))
        t.append(run.t[fine])
        tau.append(run.tau[fine])
        gaussian.append(run.skewness is not None and float(run.skewness[0]) < _GAUSSIAN)
        closure.append(run.source == "closure")
        grids.append((run.k_max, grid.n, run.nu))
    if not grids:
        raise DataError("runs must have spectra and k_max; none of them has both")
    top, sizes, nus = zip(*grids, strict=True)
    n = max(sizes)
    wide = [torch.nn.functional.pad(x, (0, n - x.shape[1])) for x in u]
    return ShellTable(
        u=pad_sequence(wide, batch_first=True),
        t=pad_sequence(t, batch_first=True),
        tau=pad_sequence(tau, batch_first=True),
        rows=torch.tensor([len(x) for x in t]),
        gaussian=torch.tensor(gaussian),
        closure=torch.tensor(closure),
        top=torch.tensor(top, dtype=torch.float64),
        sizes=torch.tensor(sizes),
        nu=torch.tensor(nus, dtype=torch.float64),
    )


class _Rows:
    """Draws pairs of numbers, of a run and of its record to start from, (n, 2)."""

    def __init__(self, table: ShellTable, starts: int, measured: float) -> None:
        self.table, self.device = table, torch.device("cpu")
        n, R = int(table.closure.sum()), len(table.rows)
        weight = torch.ones(R, dtype=torch.float64)
        if 0 < n < R:
            weight = torch.where(table.closure, (1 - measured) / n, measured / (R - n)).double()
        self.weight = weight
        self.starts = [_starts(table, r, starts) for r in range(R)]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        runs = torch.multinomial(self.weight, n, True, generator=generator)
        draw = torch.rand(n, generator=generator)
        rows = [
            self.starts[r][int(x * len(self.starts[r]))]
            for r, x in zip(runs.tolist(), draw.tolist(), strict=True)
        ]
        return torch.stack([runs, torch.tensor(rows)], 1)


def _starts(table: ShellTable, run: int, number: int) -> list[int]:
    """Records a rollout may start from: the first, counted thrice, and later ones."""
    tau = table.tau[run, : int(table.rows[run])]
    first = _DEVELOPED if bool(table.gaussian[run]) else 0.1
    later = torch.linspace(first, float(tau[-1]) - 0.4, number, dtype=torch.float64)
    rows = torch.searchsorted(tau, later.clamp_min(0.0)).clamp_max(len(tau) - 2)
    return [0, 0, 0, *rows.tolist()]


class ShellLoss(nn.Module):
    """Squared errors of ln k, ln eps and ln u at later records of a rollout.

    Args:
        model: the shells.
        table: the records.
        horizon: span of tau of the first updates and of the final ones.
        steps: number of updates until the horizon is full.
    """

    def __init__(
        self, model: ShellModel, table: ShellTable, horizon: tuple[float, float], steps: int
    ) -> None:
        super().__init__()
        self.model, self.table = model, table
        self.horizon, self.steps = horizon, steps
        self.updates: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Tensor) -> Loss:
        """Mean errors of starts (run, record), (n, 2)."""
        table = self.table
        done = min(1.0, float(self.updates) / max(1, self.steps))
        span = self.horizon[0] + (self.horizon[1] - self.horizon[0]) * done
        if self.training:
            self.updates += 1
        run, row = batch[:, 0], batch[:, 1]
        records = self._records(run, row, span)
        grid = ShellGrid(table.top[run], table.sizes[run], table.nu[run])
        truth = table.u[run[:, None], records][..., : grid.n].permute(1, 2, 0)
        t = table.t[run[:, None], records].T
        age = torch.where(table.gaussian[run] & (row == 0), 0.0, torch.inf).to(t)
        found = self.model.march(grid, truth[0], t - t[0], age, coarse=_COARSE, most=_MOST)
        return _compare(grid, found[1:], truth[1:])

    def _records(self, run: Tensor, row: Tensor, span: float) -> Tensor:
        """Numbers of the records of each rollout, evenly in tau, (n, records + 1)."""
        out = []
        for r, i in zip(run.tolist(), row.tolist(), strict=True):
            tau = self.table.tau[r, : int(self.table.rows[r])]
            part = torch.linspace(0, span, _RECORDS + 1, dtype=tau.dtype)
            # The nearest record, so that starts keep theirs.
            middle = (tau[1:] + tau[:-1]) / 2
            out.append(torch.searchsorted(middle, (tau[i] + part)).clamp_max(len(tau) - 1))
        return torch.stack(out)


def _compare(
    grid: ShellGrid,
    found: Float[Tensor, "time shells batch"],
    truth: Float[Tensor, "time shells batch"],
) -> Loss:
    square = grid.kappa**2
    k, k_true = found.sum(1), truth.sum(1)
    eps, eps_true = (square * found).sum(1), (square * truth).sum(1)
    part = truth / k_true[:, None] + square * truth / eps_true[:, None]
    floor = 1e-6 * truth.amax(1, keepdim=True)
    error = ((found + floor) / (truth + floor)).log()
    # A wild start does not rule a batch.
    loss_k, loss_e = _robust((k / k_true).log()).mean(), _robust((eps / eps_true).log()).mean()
    loss_u = (part / 2 * _robust(error)).sum(1).mean()
    terms = {
        "k": loss_k.detach().sqrt(),
        "eps": loss_e.detach().sqrt(),
        "shells": loss_u.detach().sqrt(),
    }
    return Loss(4 * loss_k + loss_e + 0.5 * loss_u, terms)


def _robust(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return 2 * torch.nn.functional.huber_loss(x, torch.zeros_like(x), reduction="none", delta=0.3)
