"""Leave-one-out: what the rows say, that nothing leaks, and the real data."""

import json
import logging

import pytest
import torch

from sciflow import DataError, Snapshots, wlf
from sciflow.data import read_cells
from sciflow.metrics import wasserstein1
from sciflow.systems import PointMasses
from sciflow.wlf.baselines import Interpolation
from sciflow.wlf.evaluate import FLOOR, MIDPOINT, MIDPOINT_MEAN, PREVIOUS, SEEN, SPLINE

logger = logging.getLogger(__name__)

QUICK = {"steps": 60, "device": "cpu", "progress": False}


@pytest.fixture
def drift():
    """Four clouds on a line, at uneven times."""
    g = torch.Generator().manual_seed(3)
    times = [0.0, 1.0, 3.0, 4.0]
    return Snapshots([torch.randn(80, 2, generator=g) + 2 * t for t in times], times)


def test_rows_and_files(drift, tmp_path):
    result = wlf.evaluate(drift, seeds=(0, 1), **QUICK)
    assert [(r.time, r.method) for r in result.rows] == [
        (t, m)
        for t in (1.0, 3.0, None)
        for m in (FLOOR, PREVIOUS, MIDPOINT, SPLINE, MIDPOINT_MEAN, "flow (ot)")
    ]
    ours = result.row("flow (ot)")
    assert ours.seeds == (0, 1)
    assert ours.w1 == pytest.approx(
        (result.row("flow (ot)", 1.0).w1 + result.row("flow (ot)", 3.0).w1) / 2
    )
    table, document = result.save(tmp_path)
    assert table.read_text().count("\n") == 19
    assert len(json.loads(document.read_text())["rows"]) == 18
    text = result.table()
    for word in ("scaler", "start", "seeds: 0, 1", FLOOR, PREVIOUS, MIDPOINT, SPLINE):
        assert word in text


def test_previous_and_midpoint_rows_are_what_they_say(drift):
    result = wlf.evaluate(drift, hold_out=[1], seeds=(0,), whiten=False, **QUICK)
    x = drift.samples
    assert result.row(PREVIOUS, 1.0).w1 == pytest.approx(wasserstein1(x[0], x[1]), rel=1e-12)
    # the true motion is a shift: the midpoint under transport, a third of the way, is near it
    assert result.row(MIDPOINT, 1.0).w1 < 0.5 * result.row(PREVIOUS, 1.0).w1
    assert "none" in result.rows[0].scaler


@pytest.mark.parametrize("lagrangian", ["ot", "density+smooth-mean", "sb+uot"])
def test_held_out_cells_leave_no_trace(drift, lagrangian):
    """Held-out values near 1e6 change not one bit of scaler, couplings, path or weights."""
    models = []
    options = QUICK | {"lagrangian": lagrangian, "path_steps": 20}
    for poison in (False, True):
        samples = list(drift.samples)
        if poison:
            samples[2] = 1e6 + samples[2]
        data = Snapshots(samples, drift.times)
        fitted = wlf.fit(data, hold_out=(2,), **options)
        fold = wlf.evaluate(data, hold_out=[2], seeds=(0,), **options).folds[0]
        models.append((fitted, fold.model, fold.predicted))
    (a, a_fold, a_points), (b, b_fold, b_points) = models
    for left, right in ((a, b), (a_fold, b_fold)):
        assert left.scale == right.scale
        assert left.action() == right.action()
        for p, q in zip(left.parameters(), right.parameters(), strict=True):
            assert torch.equal(p, q)
    assert torch.equal(a_points, b_points)


def test_leave_two_out_starts_before_both(drift):
    result = wlf.evaluate(drift, "pairs", seeds=(0,), **QUICK)
    assert [(r.time, r.method) for r in result.rows if r.method == PREVIOUS] == [
        (1.0, PREVIOUS), (3.0, PREVIOUS), (None, PREVIOUS)
    ]  # fmt: skip
    cells = torch.cat([drift.samples[0], drift.samples[3]])
    scaled = [(drift.samples[k] - cells.mean(0)) / cells.std(0) for k in (0, 2)]
    assert result.row(PREVIOUS, 3.0).w1 == pytest.approx(wasserstein1(*scaled), rel=1e-12)


def test_all_seen_moves_test_cells_one_step(drift):
    g = torch.Generator().manual_seed(8)
    test = Snapshots([torch.randn(60, 2, generator=g) + 2 * t for t in drift.times], drift.times)
    result = wlf.evaluate(drift, "none", test=test, seeds=(0,), whiten=False, **QUICK)
    assert [r.time for r in result.rows if r.method == "flow (ot)"] == [1.0, 3.0, 4.0, None]
    x = test.samples
    assert result.row(PREVIOUS, 1.0).w1 == pytest.approx(wasserstein1(x[0], x[1]), rel=1e-12)
    seen = wasserstein1(drift.samples[3], x[3])
    assert result.row(SEEN, 4.0).w1 == pytest.approx(seen, rel=1e-12)


def test_masses_are_scored(drift):
    """Mass doubles per unit of time everywhere; the middle of a straight line misses that."""
    data = Snapshots(drift.samples, drift.times, masses=2.0**drift.times)
    options = QUICK | {"steps": 1000, "lagrangian": "uot", "growth_penalty": 0.2}
    result = wlf.evaluate(data, [1], seeds=(0,), **options)
    assert result.row(MIDPOINT, 1.0).mass_error == pytest.approx((1 + 7 / 3) / 2 - 1)
    # the cloud moves as one point mass: from t = 0 to 3 by (6, 6), in scaled units
    cells = torch.cat([drift.samples[k] for k in (0, 2, 3)])
    distance = float((6 / cells.std(0)).norm())
    geodesic = PointMasses(1.0, 8.0, distance, 0.2).mass(1 / 3) / 2 - 1
    assert result.row("flow (uot)", 1.0).mass_error == pytest.approx(geodesic, abs=0.05)
    assert result.folds[0].weight is not None
    assert result.row(FLOOR, 1.0).mass_error == 0.0


def test_same_seed_same_model(drift):
    a, b = (wlf.fit(drift, seed=4, steps=20, device="cpu", progress=False) for _ in range(2))
    c = wlf.fit(drift, seed=5, steps=20, device="cpu", progress=False)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(next(a.parameters()), next(c.parameters()))


def test_refusals(drift, unchecked):
    two = Snapshots(drift.samples[:2], drift.times[:2])
    with pytest.raises(DataError, match="at least three"):
        wlf.evaluate(two)
    with pytest.raises(DataError, match="at least four"):
        wlf.evaluate(drift.without(1), "pairs")
    with pytest.raises(ValueError, match="needs test="):
        wlf.evaluate(drift, "none")
    with pytest.raises(DataError, match="times and dimensions"):
        wlf.evaluate(drift, "none", test=two)
    for ends in (0, 3, 9, -1):
        with pytest.raises(DataError, match=f"interior time points 1 to 2.*got {ends}"):
            wlf.evaluate(drift, hold_out=[ends])
    with pytest.raises(ValueError, match="seed"):
        wlf.evaluate(drift, seeds=())
    flat = drift.map(lambda x: torch.cat([x, torch.ones(len(x), 1)], 1))
    with pytest.raises(DataError, match="column 2"):
        wlf.evaluate(flat)


def embryoid_body(data_dir) -> Snapshots:
    return read_cells(data_dir / "singlecell" / "eb_subset_100pc.npz", n_dims=5).snapshots()


def test_training_free_rows_of_the_embryoid_bodies(data_dir):
    """The rows to beat, against figures of an independent implementation."""
    cells, w1 = embryoid_body(data_dir), {}
    for k in (1, 2, 3):
        visible = cells.without(k)
        stack = torch.cat(visible.samples)
        scaled = cells.map(lambda x: (x - stack.mean(0)) / stack.std(0))  # noqa: B023
        rows = Interpolation(scaled.without(k), float(cells.times[k]), 2000, torch.Generator())
        for name in ("midpoint", "midpoint_with_mean"):
            x, weight = getattr(rows, name)()
            w1.setdefault(name, []).append(wasserstein1(x, scaled.samples[k], weight))
    assert w1["midpoint"] == pytest.approx([0.826, 0.894, 0.916], abs=0.002)
    assert w1["midpoint_with_mean"] == pytest.approx([0.804, 0.891, 0.820], abs=0.002)


def test_permuted_labels_hold_nothing_to_learn(data_dir):
    """Cells with shuffled times: a flow that beats interpolation has seen what it should not."""
    cells = embryoid_body(data_dir)
    order = torch.randperm(sum(cells.sizes), generator=torch.Generator().manual_seed(4))
    shuffled = Snapshots(torch.cat(cells.samples)[order].split(cells.sizes), cells.times)
    result = wlf.evaluate(
        shuffled,
        [2],
        seeds=(0,),
        lagrangian="smooth-mean",
        steps=300,
        device="cpu",
        progress=False,
    )
    ours, midpoint = result.row(result.ours), result.row(MIDPOINT)
    assert ours.w1 >= midpoint.w1
    # All times are one population: what is left is noise, of about 0.005 between such samples.
    assert abs(ours.energy) < 0.05
    assert abs(midpoint.energy) < 0.05


@pytest.mark.slow
def test_embryoid_body_three_seeds(data_dir):
    result = wlf.evaluate(embryoid_body(data_dir), device="cpu", progress=False)
    logger.info("\n%s", result.table())
    ours = result.row("flow (ot)")
    assert ours.seeds == (0, 1, 2)
    assert ours.w1 <= 0.90
    assert ours.seconds <= 180
