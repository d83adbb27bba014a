import logging

import numpy as np
import pytest
import torch

from sciflow.errors import DataError
from sciflow.train import EnergySampler, Samples, Snapshots, Source, Walkers


def test_samples_draw_rows_evenly_and_together(generator):
    x = torch.arange(6.0).reshape(6, 1)
    rows, doubled = Samples(x, 2 * x).sample(60_000, generator)
    assert torch.equal(doubled, 2 * rows)
    counts = torch.bincount(rows[:, 0].long(), minlength=6)
    # 60000 draws of 6 rows: standard deviation 91; 5 of them.
    assert (counts - 10_000).abs().max() < 456


def test_samples_keep_the_structure_of_the_data(generator):
    x = np.arange(8).reshape(4, 2)
    batch = Samples({"k": x.astype(float), "cell": x[:, 0]}).sample(3, generator)
    assert batch["k"].shape == (3, 2) and batch["cell"].dtype == torch.int64
    assert torch.equal(batch["k"][:, 0].long(), batch["cell"])
    assert Samples(x[::-1]).sample(5, generator).shape == (5, 2)  # negative strides


def test_weights_set_the_frequencies_and_zero_is_never_drawn(generator):
    x = torch.arange(4.0)
    drawn = Samples(x, weights=[0.0, 1.0, 3.0, 0.0]).sample(40_000, generator)
    counts = torch.bincount(drawn.long(), minlength=4)
    assert counts[0] == 0 and counts[3] == 0
    assert abs(int(counts[2]) - 30_000) < 5 * 87  # binomial standard deviation 87


def test_the_generator_decides_the_batch():
    source = Samples(torch.randn(50, 3), weights=torch.rand(50))
    a, b = (source.sample(9, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    state = torch.get_rng_state()
    source.sample(9, torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "arguments, kwargs, message",
    [
        ((np.array([[1.0, 2.0], [3.0, np.nan]]),), {}, r"samples\[0\]: nan at row 1, column 1"),
        ((torch.ones(3), torch.ones(4)), {}, "4 rows"),
        ((torch.ones(0, 2),), {}, "no rows"),
        ((["a", "b"],), {}, "not an array of numbers"),
        (({},), {}, "empty"),
        ((torch.ones(3),), {"weights": [1.0, 2.0]}, r"expected \(3,\)"),
        ((torch.ones(3),), {"weights": [1.0, -2.0, 1.0]}, "row 1 is -2.0"),
        ((torch.ones(2),), {"weights": [0.0, 0.0]}, "not all 0"),
        ((torch.ones(2, 2, 2) / torch.tensor([1.0, 0.0]),), {}, r"inf at row 0, index \(0, 1\)"),
    ],
)
def test_samples_refuse_bad_data(arguments, kwargs, message):
    with pytest.raises(DataError, match=message):
        Samples(*arguments, **kwargs)


def snapshots(**kwargs):
    g = torch.Generator().manual_seed(0)
    sizes = (5, 3, 4)
    x = [10 * k + torch.rand(n, 2, generator=g, device="cpu") for k, n in enumerate(sizes)]
    return Snapshots(x, [0.0, 0.5, 2.0], **kwargs)


def test_snapshots_hold_float64_on_the_cpu():
    snaps = Snapshots([np.ones((2, 3), "float32"), [[1, 2, 3]]], np.array([1, 4]))
    assert (snaps.dim, snaps.n_times, len(snaps), snaps.sizes) == (3, 2, 2, (2, 1))
    assert all(x.dtype == torch.float64 and x.device.type == "cpu" for x in snaps.samples)
    assert snaps.times.tolist() == [1.0, 4.0] and snaps.masses is None
    assert repr(snaps) == "Snapshots(2 times, t = 1 ... 4, sizes (2, 1), d = 3)"
    assert isinstance(snaps, Source)


def test_unsorted_times_are_sorted_with_their_samples_and_masses(caplog):
    with caplog.at_level(logging.WARNING, logger="sciflow"):
        snaps = Snapshots([[[2.0]], [[0.0], [0.1]], [[1.0]]], [2.0, 0.0, 1.0], [30, 10, 20])
    assert "not sorted" in caplog.text
    assert snaps.times.tolist() == [0.0, 1.0, 2.0]
    assert [float(x[0, 0]) for x in snaps.samples] == [0.0, 1.0, 2.0]
    assert snaps.masses.tolist() == [10.0, 20.0, 30.0] and snaps.sizes == (2, 1, 1)


def test_snapshots_draw_each_marginal_evenly_and_on_its_own(generator):
    snaps = snapshots()
    batch = snaps.sample(30_000, generator)
    assert batch.x.shape == (30_000, 3, 2)
    picks = []
    for k, population in enumerate(snaps.samples):
        equal = (batch.x[:, k, None, :] == population).all(-1)
        assert equal.any(1).all()  # every draw is a row of its own time point
        counts = equal.sum(0)
        n = len(population)
        spread = (30_000 * (1 / n) * (1 - 1 / n)) ** 0.5
        assert (counts - 30_000 / n).abs().max() < 5 * spread
        picks.append(equal.long().argmax(1).double())
    assert abs(torch.corrcoef(torch.stack(picks))[0, 2]) < 5 / 30_000**0.5
    placed = snaps.placed(torch.device("cpu"), torch.float32)
    a = placed.sample(7, torch.Generator().manual_seed(2)).x
    b = snaps.sample(7, torch.Generator().manual_seed(2)).x
    assert a.dtype == torch.float32 and torch.equal(a, b.float())


def test_without_and_map():
    snaps = snapshots(masses=[1.0, 2.0, 3.0])
    held = snaps.without(-2)
    assert held.times.tolist() == [0.0, 2.0] and held.masses.tolist() == [1.0, 3.0]
    assert torch.equal(held.samples[1], snaps.samples[2])
    doubled = snaps.map(lambda x: 2 * x[:, :1])
    assert doubled.dim == 1 and torch.equal(doubled.samples[1], 2 * snaps.samples[1][:, :1])
    assert doubled.masses.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(DataError, match="no time point 3"):
        snaps.without(3)
    with pytest.raises(DataError, match="at least two"):
        held.without(0)


good = [np.zeros((2, 2)), np.ones((3, 2))]


@pytest.mark.parametrize(
    "samples, times, masses, message",
    [
        (good[:1], [0.0], None, "at least two time points are needed, got 1"),
        ([good[0], np.zeros((0, 2))], [0.0, 1.0], None, r"time point 1 \(t = 1\) has no samples"),
        (
            [good[0], np.zeros((2, 3))],
            [0.0, 1.0],
            None,
            "time point 1 .* 3 dimensions, expected 2",
        ),
        ([good[0], np.zeros(2)], [0.0, 1.0], None, r"time point 1 .* shape \(2,\)"),
        ([good[0], [[1.0, np.inf]]], [0.0, 1.0], None, "time point 1 .* inf at row 0, column 1"),
        ([good[0], [["a", "b"]]], [0.0, 1.0], None, "time point 1 .* not an array of numbers"),
        (good, [0.0], None, r"times has shape \(1,\), expected \(2,\)"),
        (good, [1.0, 1.0], None, "time points 0 and 1 are 1.0"),
        (good, [0.0, np.nan], None, "times: nan at row 1"),
        (good, ["a", "b"], None, "times is not an array of numbers"),
        (good, [0.0, 1.0], [1.0], r"masses has shape \(1,\)"),
        (good, [0.0, 1.0], [1.0, 0.0], "masses must be positive: time point 1 has 0.0"),
        (good, [0.0, 1.0], [np.inf, 1.0], "masses: inf at row 0"),
    ],
)
def test_snapshots_refuse_bad_data(samples, times, masses, message):
    with pytest.raises(DataError, match=message):
        Snapshots(samples, times, masses)


def test_energy_sampler_draws_and_refuses_a_wrong_number_of_rows(generator):
    source = EnergySampler(lambda n, g: torch.randn(n, 2, generator=g))
    expected = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(source.sample(5, generator), expected)
    with pytest.raises(DataError, match=r"draw\(5, generator\) returned a tensor of shape \(4,"):
        EnergySampler(lambda n, g: torch.zeros(4, 2)).sample(5, generator)
    with pytest.raises(TypeError):
        EnergySampler(3)


def test_walkers_move_take_turns_and_go_back_to_a_saved_state(generator):
    def move(x, g):
        x += torch.rand(x.shape, generator=g)  # in place: must not reach x0 or a saved state
        return x

    x0 = torch.arange(5.0)[:, None] * 100
    walkers = Walkers(x0, move)
    first = walkers.sample(3, generator)
    assert torch.equal(x0, torch.arange(5.0)[:, None] * 100)
    assert (first // 100)[:, 0].tolist() == [0, 1, 2]
    state, random = walkers.state_dict(), generator.get_state()
    second = walkers.sample(4, generator)
    assert (second // 100)[:, 0].tolist() == [3, 4, 0, 1]
    assert second[2] > first[0]  # walker 0 moved on from where it was
    walkers.load_state_dict(state)
    generator.set_state(random)
    assert torch.equal(walkers.sample(4, generator), second)
    with pytest.raises(DataError, match="shape"):
        Walkers(torch.zeros(3, 1), move).load_state_dict(state)


def test_walkers_sample_their_density(generator):
    """Metropolis moves on a Gaussian: the population keeps its variance (exact value 4)."""

    def move(x, g):
        for _ in range(5):
            y = x + 4 * torch.randn(x.shape, generator=g)
            accept = torch.rand(len(x), 1, generator=g) < torch.exp((x**2 - y**2) / 8)
            x = torch.where(accept, y, x)
        return x

    walkers = Walkers(torch.zeros(4000, 1), move)
    for _ in range(10):
        x = walkers.sample(4000, generator)
    # Variance of a Gaussian from 4000 draws: standard error 4 sqrt(2/4000) = 0.09.
    assert abs(float(x.var()) - 4) < 0.45


def test_walkers_refuse_bad_populations(generator):
    with pytest.raises(DataError, match="no walkers"):
        Walkers(torch.zeros(0, 2), lambda x, g: x)
    with pytest.raises(DataError, match="x0: nan at row 1, column 0"):
        Walkers(torch.tensor([[0.0], [float("nan")]]), lambda x, g: x)
    with pytest.raises(DataError, match="changed the shape"):
        Walkers(torch.zeros(3, 2), lambda x, g: x[:2]).sample(2, generator)
