"""Leave-one-out: what the rows say, that nothing leaks, and the real data."""

import json
import logging

import pytest
import torch

from sciflow import DataError, Snapshots, wlf
from sciflow.data import read_cells
from sciflow.metrics import wasserstein1
from sciflow.wlf.evaluate import FLOOR, MIDPOINT, PREVIOUS

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
        (t, m) for t in (1.0, 3.0, None) for m in (FLOOR, PREVIOUS, MIDPOINT, "flow (ot)")
    ]
    ours = result.row("flow (ot)")
    assert ours.seeds == (0, 1)
    assert ours.w1 == pytest.approx(
        (result.row("flow (ot)", 1.0).w1 + result.row("flow (ot)", 3.0).w1) / 2
    )
    table, document = result.save(tmp_path)
    assert table.read_text().count("\n") == 13
    assert len(json.loads(document.read_text())["rows"]) == 12
    text = result.table()
    for word in ("scaler", "start", "seeds: 0, 1", FLOOR, PREVIOUS, MIDPOINT):
        assert word in text


def test_previous_and_midpoint_rows_are_what_they_say(drift):
    result = wlf.evaluate(drift, hold_out=[1], seeds=(0,), whiten=False, **QUICK)
    x = drift.samples
    assert result.row(PREVIOUS, 1.0).w1 == pytest.approx(wasserstein1(x[0], x[1]), rel=1e-12)
    # the true motion is a shift: the midpoint under transport, a third of the way, is near it
    assert result.row(MIDPOINT, 1.0).w1 < 0.5 * result.row(PREVIOUS, 1.0).w1
    assert "none" in result.rows[0].scaler


def test_held_out_cells_leave_no_trace(drift):
    """Held-out values of 1e6 change not one bit of scaler, couplings or weights."""
    models = []
    for poison in (False, True):
        samples = list(drift.samples)
        if poison:
            samples[2] = torch.full_like(samples[2], 1e6)
        data = Snapshots(samples, drift.times)
        fitted = wlf.fit(data, hold_out=(2,), steps=40, device="cpu", progress=False)
        fold = wlf.evaluate(data, hold_out=[2], seeds=(0,), **QUICK).folds[0]
        models.append((fitted, fold.model, fold.predicted))
    (a, a_fold, a_points), (b, b_fold, b_points) = models
    for left, right in ((a, b), (a_fold, b_fold)):
        assert left.scale == right.scale
        assert left.action() == right.action()
        for p, q in zip(left.parameters(), right.parameters(), strict=True):
            assert torch.equal(p, q)
    assert torch.equal(a_points, b_points)


def test_same_seed_same_model(drift):
    a, b = (wlf.fit(drift, seed=4, steps=20, device="cpu", progress=False) for _ in range(2))
    c = wlf.fit(drift, seed=5, steps=20, device="cpu", progress=False)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(next(a.parameters()), next(c.parameters()))


def test_refusals(drift):
    two = Snapshots(drift.samples[:2], drift.times[:2])
    with pytest.raises(DataError, match="at least three"):
        wlf.evaluate(two)
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


def test_embryoid_body(data_dir):
    """One seed and a third of the steps; the figure of record is the slow test below."""
    result = wlf.evaluate(
        embryoid_body(data_dir), seeds=(0,), steps=600, device="cpu", progress=False
    )
    assert result.row(PREVIOUS).w1 == pytest.approx(1.25, abs=0.02)
    assert result.row(MIDPOINT).w1 == pytest.approx(0.878, abs=0.005)
    assert result.row(FLOOR).w1 == pytest.approx(0.67, abs=0.03)
    assert result.row("flow (ot)").w1 <= 0.90


@pytest.mark.slow
def test_embryoid_body_three_seeds(data_dir):
    result = wlf.evaluate(embryoid_body(data_dir), device="cpu", progress=False)
    logger.info("\n%s", result.table())
    ours = result.row("flow (ot)")
    assert ours.seeds == (0, 1, 2)
    assert ours.w1 <= 0.90
    assert ours.seconds <= 180
