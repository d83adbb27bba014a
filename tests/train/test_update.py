import math

import pytest
import torch
from train_problems import Location

from sciflow.errors import TrainingError
from sciflow.train import Loss, ParamGroup, Samples, Trainer

quiet = {"progress": False, "device": "cpu", "dtype": "float64", "ema": 0.0}


class Saddle(torch.nn.Module):
    """min over a, max over b of a^2/2 + a b / 2 - b^2/2 + (a + b) x.

    Stationary where a + b/2 = -x and a/2 - b = -x: a = -1.2 x, b = 0.4 x.
    """

    def __init__(self):
        super().__init__()
        self.low = torch.nn.ParameterDict({"a": torch.nn.Parameter(torch.tensor(1.0))})
        self.b = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        a, b = self.low["a"], self.b
        return Loss(a**2 / 2 + a * b / 2 - b**2 / 2 + (a + b) * x.mean())


def test_groups_find_the_saddle_that_plain_descent_leaves():
    groups = (ParamGroup("low", lr=0.05), ParamGroup("b", maximize=True, betas=(0.5, 0.99)))
    game = Saddle()
    Trainer(steps=400, lr=0.05, update=groups, **quiet).fit(game, Samples(torch.ones(4)))
    a, b = game.low["a"].item(), game.b.item()
    assert abs(a + 1.2) < 0.01 and abs(b - 0.4) < 0.01, (a, b)
    descent = Saddle()
    Trainer(steps=100, lr=0.05, **quiet).fit(descent, Samples(torch.ones(4)))
    assert abs(descent.b.item() - 0.4) > 1


def test_a_group_has_its_own_rate_decay_and_pace():
    """The first step of Adam is the rate times the sign of the gradient."""
    game = Saddle()
    groups = [ParamGroup("low", lr=0.5), ParamGroup("b", maximize=True, every=2)]
    trainer = Trainer(steps=2, lr=0.1, decay="constant", update=groups, **quiet)
    path = []
    game.register_forward_hook(lambda *_: path.append((game.low["a"].item(), game.b.item())))
    trainer.fit(game, Samples(torch.ones(4)))
    path.append((game.low["a"].item(), game.b.item()))
    # At (1, 1): the slope along a is 1 + 1/2 + 1 > 0 (go down), along b 1/2 - 1 + 1 > 0 (go up).
    assert path[1] == pytest.approx((0.5, 1.1))
    assert path[2][0] < path[1][0] and path[2][1] == path[1][1]  # b rests at the second step


@pytest.mark.parametrize(
    "groups, message",
    [
        ([ParamGroup("low")], "no group holds b"),
        ([ParamGroup("low"), ParamGroup("b"), ParamGroup("low.a")], "low.a is in two groups"),
        ([ParamGroup("lo"), ParamGroup("b")], "'lo' names no trainable parameter"),
    ],
)
def test_groups_must_cover_the_parameters_once(groups, message):
    with pytest.raises(ValueError, match=message):
        Trainer(steps=1, update=groups, **quiet).fit(Saddle(), Samples(torch.ones(4)))


def test_lbfgs_solves_a_quadratic_at_once():
    """The minimum of the mean squared distance to all samples is their mean."""
    x = torch.randn(64)
    everything = Samples(x[None])  # one row: every batch is all the data
    trainer = Trainer(steps=1, batch_size=1, lr=1.0, update="lbfgs", **quiet)
    result = trainer.fit(Location(5.0), everything)
    assert abs(result.model.centre.item() - x.mean().item()) < 1e-12
    assert result.history["loss"] == [pytest.approx(float(((x - 5) ** 2).mean()))]


def test_weight_decay_reaches_the_optimiser():
    one = Trainer(steps=1, lr=0.1, update="sgd", weight_decay=2.0, **quiet)
    result = one.fit(Location(5.0), Samples(torch.full((4,), 5.0)))
    assert result.model.centre.item() == pytest.approx(5 - 0.1 * 2 * 5)


def test_complex_parameters_are_trained():
    """The minimum of the mean of |z - c|^2 is the mean of z; spectral weights are complex."""

    class Centre(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Parameter(torch.zeros((), dtype=torch.complex128))

        def forward(self, z):
            return Loss((z - self.c).abs().square().mean())

    z = torch.tensor([1 + 2j, 3 - 4j])
    trainer = Trainer(steps=200, batch_size=1024, lr=0.1, **quiet)
    model = trainer.fit(Centre(), Samples(z)).model
    assert model.c.dtype == torch.complex128 and abs(model.c.item() - (2 - 1j)) < 0.1


class Newton:
    """Jumps to the mean of the batch, by ``scale`` of the way; breaks at the call ``bad``."""

    def __init__(self, bad=None):
        self.scale, self.scales, self.calls, self.bad = 1.0, [], 0, bad

    def step(self, objective, batch):
        self.calls += 1
        self.scales.append(self.scale)
        loss = objective(batch)
        with torch.no_grad():
            centre = objective.centre
            centre += self.scale * (batch.mean() - centre)
            if self.calls == self.bad:
                centre.fill_(math.nan)
        return Loss(loss.value.detach(), {"calls": torch.tensor(float(self.calls))})

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_an_object_makes_its_own_steps_at_the_rate_of_the_schedule():
    newton = Newton()
    trainer = Trainer(steps=5, decay="linear", update=newton, log_every=1, **quiet)
    result = trainer.fit(Location(5.0), Samples(torch.full((4,), 2.0)))
    assert newton.scales == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert result.model.centre.item() == 2.0
    assert result.history["loss"] == [9.0, 0.0, 0.0, 0.0, 0.0]
    assert result.history["calls"] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_bad_step_of_an_object_is_undone():
    objective = Location(5.0)
    trainer = Trainer(steps=5, update=Newton(bad=3), **quiet)
    with pytest.raises(TrainingError, match="step 3.* made a parameter that is not finite"):
        trainer.fit(objective, Samples(torch.full((4,), 2.0)))
    assert objective.centre.item() == 2.0


def test_an_object_that_returns_no_loss_is_named():
    class Silent:
        def step(self, objective, batch):
            return None

    with pytest.raises(TypeError, match="Silent.step must return a Loss, got NoneType"):
        Trainer(steps=1, update=Silent(), **quiet).fit(Location(), Samples(torch.ones(4)))
