"""Wasserstein Lagrangian flows: Gaussians, a gene network, and real cells where they are there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from sciflow import wlf
from sciflow.am.coupling import exact_coupling
from sciflow.data import find, read_cells
from sciflow.demo.setting import Clock, Setting, panels
from sciflow.report import Entry, Figure, Section
from sciflow.shapes import Float, Tensor
from sciflow.systems import GaussianTransport, GeneNetwork
from sciflow.train import Snapshots
from sciflow.wlf.evaluate import FLOOR, MIDPOINT, PREVIOUS, Evaluation

logger = logging.getLogger(__name__)

_STEPS = 1000
_FULL = "sciflow wlf evaluate CELLS.h5ad --hold-out each"
# Datasets of the embryoid-body time course, the larger first.
_EMBRYOID_BODY = ("embryoid-body", "embryoid-body-subset")


def gaussians(setting: Setting) -> Section:
    """A flow between two Gaussians against the closed form."""
    from sciflow import plots

    seed, clock = setting.seed, Clock(setting.seed)
    cov = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    mean = torch.tensor([2.0, 1.0], dtype=torch.float64)
    zero, unit = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    truth = GaussianTransport(zero, unit, mean, cov)
    x = _normal(1024, seed)
    y = mean + _normal(1024, seed + 1) @ torch.linalg.cholesky(cov).T
    snapshots = Snapshots([x, y], [0.0, 1.0])
    model = wlf.fit(snapshots, steps=setting.steps(_STEPS), **setting.options)
    generator = torch.Generator().manual_seed(seed)
    error = size = 0.0
    for t in torch.linspace(0.0, 1.0, 11).tolist():
        points = truth.sample(t, 2000, generator)
        velocity = truth.velocity(t, points)
        error += float((model.velocity(t, points) - velocity).square().sum())
        size += float(velocity.square().sum())
    source = "closed form: Olkin and Pukelsheim (1982), McCann (1997)"
    shared: dict[str, Any] = {"source": source} | clock.stop()
    entries = (
        Entry(
            "relative error of the velocity (L2)",
            (error / size) ** 0.5, 0.0, tolerance=0.05, direction="at most", **shared,
        ),
        Entry(
            "kinetic action along the flow",
            model.action().rollout, float(truth.kinetic_action), tolerance=0.02, relative=True,
            **shared,
        ),
        Entry(
            "kinetic action, dual estimate",
            model.action().dual, float(truth.kinetic_action), tolerance=0.02, relative=True,
            **shared,
        ),
    )  # fmt: skip
    t = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    paths = model.trajectories(x[:40], t)
    figure, ax = panels(1)
    plots.trajectories(paths.t, paths.x, ax[0], background=snapshots, labels=("x", "y"))
    text = (
        "A Wasserstein Lagrangian flow is fitted to 1024 points of each of two Gaussians. Its "
        "velocity and its kinetic action are known in closed form."
    )
    picture = Figure.save(
        figure, setting.out, "gaussians.png",
        "Straight paths of samples from a round Gaussian to an elongated one",
        "Paths of 40 samples. Optimal transport moves each on a straight line at constant speed.",
    )  # fmt: skip
    return Section(
        "Optimal transport between Gaussians", text, entries, (picture,),
        command="pytest -m slow tests/wlf",
    )  # fmt: skip


def gene_network(setting: Setting) -> Section:
    """Cells that choose between two fates, by a model whose velocity and growth are known."""
    from sciflow import plots

    seed, clock = setting.seed, Clock(setting.seed)
    options = {"steps": setting.steps(_STEPS)} | setting.options
    network = GeneNetwork()
    data = network.simulate(400, seed=seed)
    cells = data.snapshots
    scores = _evaluated(cells, setting, whiten=False)
    model = wlf.fit(cells, **options)

    # Truth for the velocity: the drift of the network, where cells travel from day 1 to day 2.
    pairs = exact_coupling(cells.samples[1], cells.samples[2])
    left, right = cells.samples[1][pairs.left], cells.samples[2][pairs.right]
    middle, half_way = (left + right) / 2, float(cells.times[1] + cells.times[2]) / 2
    drift = network.velocity(half_way, middle)
    learned = model.velocity(half_way, middle)

    # Truth for the fates: other cells, simulated to the last day with their growth.
    fresh = network.simulate(2000, seed=seed + 1).snapshots
    ends = cells.times[[0, -1]]
    moved = model.trajectories(fresh.samples[0], ends).x[-1]
    fate, true_fate = (float((network.lineage(x) == 1).double().mean())
                       for x in (moved, fresh.samples[-1]))  # fmt: skip
    shared = clock.stop()
    entries = (
        *_score_entries(scores, **shared),
        Entry(
            "direction of the velocity at day 1.5: cosine with the true drift",
            _cosine(learned, drift), _cosine(right - left, drift),
            "displacement of exact-OT partners from day 1 to 2, not learned",
            tolerance=0.05, direction="at least", **shared,
        ),
        Entry(
            f"share of {network.genes[0]}-fated cells at day {float(ends[1]):g}, moved from day 0",
            fate, true_fate, "2000 other cells simulated with noise and growth",
            tolerance=0.05, **shared,
        ),
    )  # fmt: skip
    figure, ax = panels(2)
    labels = list(network.genes)
    t = torch.linspace(float(ends[0]), float(ends[1]), 33, dtype=torch.float64)
    plots.marginals(cells, ax[0], labels=labels, unit="days")
    paths = model.trajectories(cells.samples[0], t)
    plots.trajectories(paths.t, paths.x, ax[1], background=cells, labels=labels, unit="days")
    tree = Figure.save(
        figure, setting.out, "gene-network.png",
        "Cells of five days forming a fork of two fates, and learned paths along the fork",
        "Left: simulated cells. Right: paths of the learned flow from the cells of day 0.",
    )  # fmt: skip
    growth = float(network.growth(4.0, cells.samples[-1]).mean())
    text = (
        "A toggle switch of two lineage genes with a downstream cascade is simulated with noise, "
        "birth and death; every day is an independent sample, as in sequencing. The flow sees "
        "400 cells a day. Leave-one-out: each of days 1 to 3 is hidden once and predicted from "
        "the cells of the day before.\n\n"
        f"The population grows {float(data.snapshots.masses[-1]):.2f}-fold ({growth:.2f} per day "  # type: ignore[index]
        "at the end). This flow conserves mass: it follows the composition of the population, "
        "and what growth adds to it appears as transport."
    )
    figures = (tree, *_score_figures(setting.out, "gene-network", scores, labels, "days"))
    return Section(
        "Differentiating cells of a known gene network", text, entries, figures, command=_FULL
    )


def embryoid_body(setting: Setting) -> Section | None:
    """The embryoid-body time course, each interior time point hidden once."""
    path = next((path for path in map(find, _EMBRYOID_BODY) if path), None)
    if path is None:
        logger.info("embryoid-body data is neither in SCIFLOW_DATA nor in the cache; left out")
        return None
    clock = Clock(setting.seed)
    cells = read_cells(path, n_dims=5).snapshots()
    scores = _evaluated(cells, setting)
    entries = _score_entries(scores, **clock.stop())
    text = (
        f"{sum(cells.sizes)} cells of {len(cells)} sampling times (Moon et al. 2019), 5 principal "
        f"components. Scaler: {scores.rows[0].scaler}. Start: {scores.rows[0].start}. Two halves "
        f"of the same cells are {scores.row(FLOOR).w1:.3f} apart: no prediction can be expected "
        "to score much below that."
    )
    figures = _score_figures(setting.out, "embryoid-body", scores, ["PC1", "PC2"], "sampling time")
    return Section(
        "Embryoid body, leave one time point out", text, entries, tuple(figures), command=_FULL
    )


def _evaluated(cells: Snapshots, setting: Setting, **options: Any) -> Evaluation:
    shared = {name: x for name, x in setting.options.items() if name != "seed"}
    return wlf.evaluate(
        cells, seeds=(setting.seed,), steps=setting.steps(_STEPS), **shared, **options
    )


def _score_entries(scores: Evaluation, seed: int, seconds: float) -> tuple[Entry, ...]:
    ours = scores.row(scores.ours)
    return tuple(
        Entry(
            f"W1 to the hidden cells, against {method}",
            ours.w1, scores.row(method).w1, f"{method}, same cells, this run",
            tolerance=tolerance, relative=True, direction="at most", seed=seed, seconds=seconds,
        )
        for method, tolerance in ((PREVIOUS, 0.0), (MIDPOINT, 0.03))
    )  # fmt: skip


def _score_figures(
    out: Path, name: str, scores: Evaluation, labels: list[str], unit: str
) -> list[Figure]:
    from sciflow import plots

    figure, ax = panels(2)
    floors = {row.time: row.w1 for row in scores.rows if row.method == FLOOR}
    rows = [
        plots.ScoreRow(row.method, row.time, row.w1, floors[row.time], row.w1_std)
        for row in scores.rows
        if row.time is not None and row.method != FLOOR
    ]
    plots.scores(rows, ax[0], unit=unit)
    fold = scores.folds[len(scores.folds) // 2]
    plots.predicted_against_held_out(fold.predicted, fold.held_out, ax[1], labels=labels)
    return [
        Figure.save(
            figure, out, f"{name}-scores.png",
            "Bars of W1 by method and hidden time over the sampling floor, and predicted cells "
            "over the hidden ones",
            f"Left: W1 by hidden time. Right: the cells hidden at t = {fold.time:g} and their "
            "prediction, first two coordinates.",
        )
    ]  # fmt: skip


def _normal(n: int, seed: int) -> Float[Tensor, "n 2"]:
    """Quasi-random normal points in the plane."""
    u = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    return torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
