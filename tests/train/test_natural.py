"""Natural-gradient updates against closed forms of a Gaussian family."""

import pytest
import torch

from sciflow.train import Loss, Samples, Trainer
from sciflow.train.kronecker import KroneckerFisher
from sciflow.train.natural import DampedFisher, Direction, Spring


class Normal(torch.nn.Module):
    """log q = -(x - m)^2 / (2 v) of fixed v: its Fisher information of m is 1 / v."""

    def __init__(self, variance):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor([3.0]))
        self.variance = variance

    def forward(self, x):
        return -((x - self.mean) ** 2).sum(-1) / (2 * self.variance)


class MeanOf(torch.nn.Module):
    """The mean of an energy x^2 / 2 under a normal density."""

    def __init__(self, variance, surrogate=False):
        super().__init__()
        self.model, self.surrogate = Normal(variance), surrogate

    def log_density(self, params, sample):
        return torch.func.functional_call(self.model, params, (sample[None],))[0]

    def direction(self, batch):
        energy = 0.5 * batch[:, 0] ** 2
        residual = energy - energy.mean()
        loss = Loss(energy.mean())
        if not self.surrogate:
            return Direction(loss, residual)
        return Direction(loss, torch.zeros_like(residual), (residual * self.model(batch)).mean())


def batch_of(variance, n=4000):
    noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    return 3.0 + variance**0.5 * noise


@pytest.mark.parametrize("variance", [0.1, 1.0])
@pytest.mark.parametrize("kind", ["spring", "fisher", "surrogate"])
def test_the_step_is_that_of_the_density(kind, variance):
    """The natural gradient of E[x^2] / 2 in m is v m: Fisher 1 / v, gradient m."""
    batch, objective = batch_of(variance), MeanOf(variance, kind == "surrogate")
    # With one parameter the batch alone is its exact metric; the damping biases by about 1e-8.
    options = {"lr": 0.01, "damping": 1e-8, "trust": 10.0}
    update = Spring(**options) if kind == "spring" else DampedFisher(**options)
    update.step(objective, batch)
    moved = 3.0 - objective.model.mean.item()
    error = 0.01 * variance * 3.0 * 5 * 4000**-0.5 * (2 + variance)
    assert abs(moved - 0.01 * variance * 3.0) < error
    # Both solve the same least squares, whatever the sample.
    score = (batch - 3.0) / variance
    centred = score - score.mean()
    residual = 0.5 * batch**2 - (0.5 * batch**2).mean()
    exact = float((centred * residual).mean() / (centred**2).mean())
    assert moved == pytest.approx(0.01 * exact, rel=1e-5)


def test_the_step_is_bounded_and_the_rate_decays():
    objective = MeanOf(1.0)
    update = Spring(lr=1.0, trust=0.25, momentum=0.0)
    loss = update.step(objective, batch_of(1.0))
    assert 3.0 - objective.model.mean.item() == pytest.approx(0.25)
    assert float(loss.metrics["step_norm"]) == 0.25
    narrowed = Spring(lr=1.0, trust=0.25, trust_delay=1.0, momentum=0.0)
    found = [float(narrowed.step(objective, batch_of(1.0)).metrics["step_norm"]) for _ in range(3)]
    assert found == pytest.approx([0.25, 0.125, 0.25 / 3])
    slow = Spring(lr=0.01, delay=1.0, momentum=0.0, trust=1.0)
    places = []
    for _ in range(3):
        before = objective.model.mean.item()
        slow.step(objective, batch_of(1.0))
        places.append(before - objective.model.mean.item())
        with torch.no_grad():
            objective.model.mean += places[-1]
    assert places[1] == pytest.approx(places[0] / 2) and places[2] == pytest.approx(places[0] / 3)
    even = Spring(lr=0.01, delay=float("inf"), momentum=0.0, trust=1.0)
    objective = MeanOf(1.0)
    norms = []
    for _ in range(2):
        norms.append(float(even.step(objective, batch_of(1.0)).metrics["step_norm"]))
        with torch.no_grad():
            objective.model.mean += norms[-1]
    assert norms[1] == pytest.approx(norms[0])


def test_many_parameters_against_a_dense_solve():
    """More parameters than samples: both forms of the damped step agree with linear algebra."""
    generator = torch.Generator().manual_seed(1)
    rows, residual = (torch.randn(5, k, generator=generator) for k in (9, 1))

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(9, 1, bias=False)

        def log_density(self, params, sample):
            return torch.func.functional_call(self.model, params, (sample,))[0]

        def direction(self, batch):
            return Direction(Loss(batch.sum()), residual[:, 0] - residual.mean())

    centred = (rows - rows.mean(0)) / 5**0.5
    target = (residual[:, 0] - residual.mean()) / 5**0.5
    matrix = centred.T @ centred + 0.1 * torch.eye(9)
    truth = -torch.linalg.solve(matrix, centred.T @ target)
    for update in (
        Spring(lr=1.0, damping=0.1, trust=99.0),
        DampedFisher(1.0, damping=0.1, trust=99.0),
    ):
        objective = Linear()
        before = objective.model.weight.detach().clone()
        update.step(objective, rows)
        moved = (objective.model.weight.detach() - before)[0]
        assert (moved - truth).norm() < 1e-10 * truth.norm()


def test_rounding_beyond_the_damping_does_not_break_the_gram_matrix():
    """Rows in single precision so large that their Gram matrix rounds to an indefinite one."""
    rows = 1e4 * torch.randn(64, 3, generator=torch.Generator().manual_seed(4)).float()
    gram = (rows @ rows.mT).double()
    assert float(torch.linalg.eigvalsh(gram + 0.01 * torch.eye(64)).min()) < 0
    factor = Spring(damping=0.01)._factor(rows).double()
    truth = rows.double() @ rows.double().mT + 0.01 * torch.eye(64) + 1 / 64
    assert (factor @ factor.mT - truth).abs().max() < 1e-12 * truth.abs().max()


@pytest.mark.parametrize("kind", [DampedFisher, KroneckerFisher])
def test_a_trained_mean_finds_the_minimum_and_resumes(kind, tmp_path):
    def run(steps, out=None, resume=False):
        generator = torch.Generator().manual_seed(2)
        source = Samples(3.0 + torch.randn(512, 1, generator=generator))
        trainer = Trainer(
            steps=steps, update=kind(refresh=2), dtype="float64", device="cpu",
            decay="constant", ema=0.0, progress=False, out=out, log=None,
        )  # fmt: skip
        return trainer.fit(MeanOf(1.0), source, resume=resume).model.mean.item()

    run(3, tmp_path)
    assert run(6, tmp_path, resume=True) == run(6)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="momentum must be in"):
        Spring(momentum=1.0)
    with pytest.raises(ValueError, match="damping must be positive"):
        DampedFisher(damping=0.0)
    with pytest.raises(ValueError, match="delay must be positive, got nan"):
        Spring(delay=float("nan"))
    with pytest.raises(ValueError, match="trust_delay must be positive"):
        Spring(trust_delay=0.0)
    with pytest.raises(ValueError, match="refresh must be at least 1"):
        DampedFisher(refresh=0)
    with pytest.raises(ValueError, match="take DampedFisher"):
        Spring().step(MeanOf(1.0, surrogate=True), batch_of(1.0, 8))


class Product(torch.nn.Module):
    """log q = sum of a matrix times inputs: the gradient of a sample is that sample."""

    def __init__(self, residual, surrogate=None):
        super().__init__()
        self.model = torch.nn.Linear(4, 3, bias=False)
        self.residual, self.surrogate = residual, surrogate

    def log_density(self, params, sample):
        return (params["weight"] * sample).sum()

    def direction(self, batch):
        extra = None if self.surrogate is None else (self.surrogate * self.model.weight).sum()
        return Direction(Loss(batch.sum()), self.residual, extra)


@pytest.mark.parametrize("chunk", [7, 512])
def test_kronecker_factors_are_exact_where_the_fisher_matrix_is_their_product(chunk):
    """All products of a few signed vectors: their second moment is a Kronecker product."""
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(5, 3, generator=generator), torch.randn(6, 4, generator=generator)
    a, b = torch.cat([a, -a]), torch.cat([b, -b])
    batch = (a[:, None, :, None] * b[None, :, None, :]).reshape(-1, 3, 4)
    residual = torch.randn(len(batch), generator=generator)
    residual -= residual.mean()
    moved = {}
    for name, update in {
        "dense": DampedFisher(1.0, damping=0.1, trust=99.0),
        "kronecker": KroneckerFisher(1.0, damping=0.1, trust=99.0, chunk=chunk),
    }.items():
        objective = Product(residual, torch.ones(3, 4))
        before = objective.model.weight.detach().clone()
        update.step(objective, batch)
        moved[name] = objective.model.weight.detach() - before
    assert (moved["dense"] - moved["kronecker"]).norm() < 1e-10 * moved["dense"].norm()


@pytest.mark.parametrize("variance", [0.1, 1.0])
def test_kronecker_of_one_parameter_is_the_dense_one(variance):
    objectives = MeanOf(variance), MeanOf(variance)
    for update, objective in zip(
        (DampedFisher(0.01, damping=1e-8), KroneckerFisher(0.01, damping=1e-8)),
        objectives,
        strict=True,
    ):
        for _ in range(3):
            update.step(objective, batch_of(variance))
    means = [objective.model.mean.item() for objective in objectives]
    assert means[0] == pytest.approx(means[1], rel=1e-10)
