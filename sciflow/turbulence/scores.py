"""Forecasts against what happened, beside every baseline: one table for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sciflow.turbulence.baselines import (
    STANDARD,
    RecurrentDecay,
    calibrated,
    k_epsilon,
    low_reynolds_k_epsilon,
    oracle,
    recurrent_forecast,
    relative_l2,
)
from sciflow.turbulence.forecaster import Forecaster
from sciflow.turbulence.knowledge import knowledge
from sciflow.turbulence.runs import DecayRun


@dataclass
class Scores:
    """Relative L2 errors of eps and k over physical time, mean over seeds, by case and model.

    Attributes:
        eps: model to errors of eps, one for each case.
        k: the same of k.
        seed_noise: error of eps of one seed against the mean of its case, by case.
        coverage: share of the times of all runs at which the band of eps holds the run.
        coverage_of_means: the same for the means over seeds.
        width: mean half width of the band of ln eps.
    """

    eps: dict[str, list[float]] = field(default_factory=dict)
    k: dict[str, list[float]] = field(default_factory=dict)
    seed_noise: list[float] = field(default_factory=list)
    coverage: float = 0.0
    coverage_of_means: float = 0.0
    width: float = 0.0

    def mean(self, model: str) -> float:
        """Mean error of eps over the cases."""
        return float(np.mean(self.eps[model]))


def ensembles(runs: Sequence[DecayRun]) -> dict[str, list[DecayRun]]:
    """Runs that differ by their seed alone, by the name of their case."""
    cases: dict[str, list[DecayRun]] = {}
    for run in runs:
        cases.setdefault(run.name.rpartition("-")[0], []).append(run)
    return cases


def score(
    forecaster: Forecaster,
    runs: Sequence[DecayRun],
    start: float = 0.0,
    encoder: str = "both",
    trained_on: Sequence[DecayRun] = (),
    recurrent: RecurrentDecay | None = None,
) -> Scores:
    """Score forecasts of ``runs`` from ``start`` in tau, and all baselines on the same.

    Each run is forecast from its own start and compared with the mean of eps over the seeds of
    its case at the same times, so that chance of one seed is not asked for.

    Args:
        forecaster: the model.
        runs: decays it has not seen, several seeds of each case.
        start: tau of the start of the forecast.
        encoder: the knowledge it gets.
        trained_on: runs that the constant of "k-epsilon, calibrated" is fitted to, from the same
            ``start``; empty leaves that baseline out.
        recurrent: the recurrent baseline.
    """
    out = Scores()
    constant = calibrated([_from(run, start) for run in trained_on]) if trained_on else None
    inside, inside_means, widths = [], [], []
    for seeds in ensembles(runs).values():
        parts = [_from(run, start) for run in seeds]
        end = min(float(part.t[-1] - part.t[0]) for part in parts)
        at = torch.from_numpy(np.geomspace(1.0, 1.0 + end / _early(parts), 80) - 1) * _early(parts)
        at = at.clamp(0.0, end)
        records = [part.resample(t=part.t[0] + at) for part in parts]
        mean = {n: torch.stack([getattr(r, n) for r in records]).mean(0) for n in ("k", "eps")}
        errors: dict[str, list[tuple[float, float]]] = {}
        noise = []
        for run, part, record in zip(seeds, parts, records, strict=True):
            i = int(np.searchsorted(run.tau.numpy(), start - 1e-9))
            k0, eps0 = float(part.k[0]), float(part.eps[0])
            known: dict[str, Any] = knowledge(run, i, encoder) or {}
            with torch.no_grad():
                found = forecaster.forecast(k0, eps0, run.nu, at, **known)
            models = {"sciflow": (found.k, found.eps)}
            models["k-epsilon, 1.92"] = k_epsilon(k0, eps0, at, STANDARD)
            if constant is not None:
                models["k-epsilon, calibrated"] = k_epsilon(k0, eps0, at, constant)
            models["k-epsilon, low Reynolds"] = low_reynolds_k_epsilon(k0, eps0, run.nu, at)
            models["k-epsilon, oracle"] = k_epsilon(k0, eps0, at, oracle(record))
            if recurrent is not None:
                models["LSTM"] = recurrent_forecast(recurrent, part, at)
            for name, (k, eps) in models.items():
                pair = relative_l2(at, eps, mean["eps"]), relative_l2(at, k, mean["k"])
                errors.setdefault(name, []).append(pair)
            noise.append(relative_l2(at, record.eps, mean["eps"]))
            inside.append(((record.eps > found.eps_low) & (record.eps < found.eps_high))[1:])
            held = (mean["eps"] > found.eps_low) & (mean["eps"] < found.eps_high)
            inside_means.append(held[1:])
            widths.append((found.eps_high / found.eps).log()[1:])
        for name, pairs in errors.items():
            eps_error, k_error = np.mean(pairs, axis=0)
            out.eps.setdefault(name, []).append(float(eps_error))
            out.k.setdefault(name, []).append(float(k_error))
        out.seed_noise.append(float(np.mean(noise)))
    out.coverage = float(torch.cat(inside).double().mean())
    out.coverage_of_means = float(torch.cat(inside_means).double().mean())
    out.width = float(torch.cat(widths).mean())
    return out


def _from(run: DecayRun, start: float) -> DecayRun:
    return run.since(int(np.searchsorted(run.tau.numpy(), start - 1e-9)))


def _early(parts: Sequence[DecayRun]) -> float:
    """The time over which the first of the decay happens, for times that are dense there."""
    return float(parts[0].k[0] / parts[0].eps[0])
