"""Partners by the fitted flow. What it gains in twenty dimensions is tested by the contracts."""

import pytest
import torch

from sciflow import Snapshots, wlf
from sciflow.am.source import CoupledSnapshots
from sciflow.wlf.rectify import rectified

QUICK = {"device": "cpu", "progress": False, "batch_size": 128, "lr": 4e-3, "ema": 0.98}


def test_pairs_are_carried_by_the_flow(generator):
    """Samples before are carried on, those after carried back; noise has no way back."""
    cloud = torch.randn(40, 2, generator=generator)
    snapshots = Snapshots([cloud, cloud + 2.0, 3.0 - cloud], [1.0, 2.0, 4.0])
    model = wlf.fit(snapshots, steps=20, **QUICK)
    inner = model.scale.inside(snapshots)
    source = rectified(model, CoupledSnapshots(inner), inner, seed=0)
    batch = source.sample(2000, generator)
    outer = lambda x: torch.tensor(model.scale.center) + model.scale.length * x
    for interval, span in ((batch.t_left == 0, [1.0, 2.0]), (batch.t_left > 0, [2.0, 4.0])):
        left, right = outer(batch.left[interval]), outer(batch.right[interval])
        moved = model.trajectories(left, torch.tensor(span)).x[-1]
        assert (moved - right).abs().max() < 1e-3
        assert len(left.unique(dim=0)) == 80
    noisy = wlf.fit(snapshots, "sb", steps=2, **QUICK)
    source = rectified(noisy, CoupledSnapshots(inner), inner, seed=0)
    assert len(source.sample(2000, generator).left.unique(dim=0)) == 80


def test_pairs_take_the_place_of_samples(generator):
    """Drawn pairs are those given, in their intervals; the ends of the flow stay the samples."""
    samples = [torch.full((4, 1), float(k)) for k in range(3)]
    source = CoupledSnapshots(Snapshots(samples, [0.0, 0.5, 1.0]))
    pairs = [(torch.full((2, 1), 10.0), torch.full((2, 1), 11.0)),
             (torch.full((3, 1), 20.0), torch.full((3, 1), 21.0))]  # fmt: skip
    batch = source.with_pairs(pairs).sample(400, generator)
    late = batch.t > 0.5
    assert (batch.left[:, 0] == torch.where(late, 20.0, 10.0)).all()
    assert (batch.right[:, 0] == torch.where(late, 21.0, 11.0)).all()
    assert (batch.first == 0).all()
    assert (batch.last == 2).all()
    # A second round replaces the pairs of the first.
    again = source.with_pairs(pairs).with_pairs(pairs)
    assert len(again._x) == 12 + 10


def test_a_round_with_bent_paths(generator):
    cloud = torch.randn(60, 2, generator=generator)
    shifted = Snapshots([cloud, cloud + 2.0], [0.0, 1.0])
    model = wlf.fit(shifted, "density", rectify=1, steps=60, path_steps=5, **QUICK)
    moved = model.trajectories(cloud.double(), torch.tensor([0.0, 1.0])).x[-1]
    assert (moved.mean(0) - cloud.mean(0) - 2.0).abs().max() < 0.3


def test_refusals():
    cloud = torch.zeros(5, 2)
    pair = Snapshots([cloud, cloud + 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="rectify must not be negative; got -1"):
        wlf.fit(pair, rectify=-1)
    with pytest.raises(ValueError, match="without growth"):
        wlf.fit(pair, "uot", rectify=1)
    with pytest.raises(ValueError, match="path='learned'"):
        wlf.fit(pair, rectify=1, path="learned")
