import functools
import math
import subprocess
import sys

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from train_problems import Location, Regression, product_data, product_samples

from sciflow.errors import TrainingError
from sciflow.train import EnergySampler, Loss, Samples, Trainer, gradient
from sciflow.train.checkpoint import load_state

quiet = {"progress": False, "device": "cpu", "dtype": "float64"}


def test_the_loop_is_the_loop_one_would_write_by_hand():
    """Same optimiser, schedule, draws and average as plain torch: equal to the last bit."""
    n, decay = 40, 0.8
    ours = Regression(norm=True).double()
    trainer = Trainer(steps=n, batch_size=32, lr=0.01, ema=decay, seed=5, warmup=4, **quiet)
    result = trainer.fit(ours, product_samples())

    hand, (x, y) = Regression(norm=True).double(), product_data()
    optimizer = torch.optim.Adam(hand.parameters(), fused=True)
    g = torch.Generator("cpu").manual_seed(5)
    averaged = AveragedModel(hand.model, use_buffers=True)
    averaged.n_averaged += 1  # start from the initial weights
    losses = []
    for k in range(n):
        rows = torch.randint(len(x), (32,), generator=g, device="cpu")
        loss = hand((x[rows], y[rows])).value
        optimizer.zero_grad()
        loss.backward()
        rate = (k + 1) / 5 if k < 4 else 0.5 * (1 + math.cos(math.pi * ((k - 4) / (n - 4))))
        optimizer.param_groups[0]["lr"] = 0.01 * rate
        optimizer.step()
        averaged.multi_avg_fn = get_ema_multi_avg_fn(min(decay, (1 + k) / (10 + k)))
        averaged.update_parameters(hand.model)
        losses.append(loss.item())

    for a, b in zip(ours.parameters(), hand.parameters(), strict=True):
        assert torch.equal(a, b)
    mean, own = averaged.module.state_dict(), result.model.state_dict()
    for name in own:
        if own[name].is_floating_point():
            assert torch.equal(own[name], mean[name]), name
    assert int(own["1.num_batches_tracked"]) == n  # a counter is copied, not averaged
    assert result.history.step == [1, 10, 20, 30, 40]
    assert result.history["loss"] == [losses[s - 1] for s in result.history.step]
    assert result.best_step == n and not result.interrupted and result.checkpoint is None


def test_the_model_is_a_copy_in_eval_mode_and_the_objective_is_trained_in_place():
    objective = Regression()
    before = [p.clone() for p in objective.parameters()]
    result = Trainer(steps=3, ema=0.0, **quiet).fit(objective, product_samples())
    assert not result.model.training and objective.training
    for p, q, old in zip(
        objective.model.parameters(), result.model.parameters(), before, strict=True
    ):
        assert torch.equal(p, q) and p is not q and q.grad is None and not torch.equal(p, old)


def test_batches_and_parameters_take_the_dtype_of_the_trainer():
    seen = []

    class Look(Location):
        def forward(self, batch):
            seen.append({name: x.dtype for name, x in batch.items()})
            return super().forward(batch["x"])

    source = Samples({"x": torch.randn(9), "n": torch.arange(9), "z": torch.randn(9) * 1j})
    result = Trainer(steps=2, progress=False, device="cpu", dtype="float32").fit(Look(), source)
    assert seen[0] == {"x": torch.float32, "n": torch.int64, "z": torch.complex64}
    assert result.model.centre.dtype == torch.float32


def test_an_energy_of_base_draws_reaches_its_closed_form():
    """Reverse KL of N(m, s) to exp(-(x - 3)^2 / 8): m = 3, s = 2, exactly."""

    class Affine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.m, self.log_s = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))

        def forward(self, z):
            energy = ((self.m + self.log_s.exp() * z - 3) ** 2 / 8).mean()
            return Loss(energy - self.log_s, {"energy": energy.detach()})

    source = EnergySampler(lambda n, g: torch.randn(n, generator=g, device=g.device))
    trainer = Trainer(steps=300, batch_size=512, lr=0.05, **quiet)
    model = trainer.fit(Affine(), source).model
    assert abs(model.m.item() - 3) < 0.05 and abs(model.log_s.exp().item() - 2) < 0.05


def test_rates():
    trainer = Trainer(steps=12, warmup=2, decay="cosine")
    assert [trainer.rate(k) for k in (0, 1, 2)] == [1 / 3, 2 / 3, 1.0]
    assert trainer.rate(11) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.9)))
    assert Trainer(steps=10, decay="linear").rate(9) == pytest.approx(0.1)
    assert Trainer(steps=10, decay="constant").rate(9) == 1.0


def test_clip_bounds_the_move():
    x = torch.full((4,), 100.0)
    free, held = (
        Trainer(steps=1, lr=0.1, update="sgd", ema=0.0, clip=clip, **quiet)
        .fit(Location(), Samples(x))
        .model.centre.item()
        for clip in (None, 0.5)
    )
    assert free == pytest.approx(20.0)  # gradient 2 (0 - 100), rate 0.1
    assert held == pytest.approx(0.05)


def test_evaluation_sees_the_average_in_eval_mode_and_keeps_the_best():
    seen = []

    def evaluate(model):
        gradient = torch.autograd.grad(model(torch.ones(1, 2)).sum(), model[0].weight)
        assert not model.training and gradient[0].abs().sum() > 0
        seen.append({name: x.clone() for name, x in model.state_dict().items()})
        return {"other": 0.0, "w1": [3.0, 1.0, math.nan, 2.0][len(seen) - 1]}

    objective = Regression()
    trainer = Trainer(steps=20, eval_every=6, best="w1", **quiet)
    result = trainer.fit(objective, product_samples(), evaluate)
    assert result.history.step == [1, 6, 10, 12, 18, 20]
    assert result.history.series("eval/w1") == ([6, 12, 20], [3.0, 1.0, 2.0])
    assert result.best_step == 12
    for name, x in result.model.state_dict().items():
        assert torch.equal(x, seen[1][name]) and not torch.equal(x, seen[3][name])
    seen.clear()
    trainer = Trainer(steps=20, eval_every=6, best="w1", best_mode="max", **quiet)
    assert trainer.fit(Regression(), product_samples(), evaluate).best_step == 6


def test_a_bare_figure_is_called_value_and_a_wrong_name_is_refused():
    result = Trainer(steps=4, eval_every=2, ema=0.0, **quiet).fit(
        Regression(), product_samples(), lambda model: 1.0
    )
    assert result.history.series("eval/value") == ([2, 4], [1.0, 1.0]) and result.best_step == 2
    with pytest.raises(ValueError, match="best = 'w2' is no figure of evaluate, which gave value"):
        Trainer(steps=2, best="w2", **quiet).fit(
            Regression(), product_samples(), lambda model: 1.0
        )


class Breaks(Regression):
    """Not finite from the call ``at`` on: in a term of the loss, or in a gradient only."""

    def __init__(self, at, where):
        super().__init__()
        self.at, self.where, self.calls = at, where, 0
        self.extra = torch.nn.Parameter(torch.zeros(()))
        self.weights = []

    def forward(self, batch):
        loss = super().forward(batch)
        self.calls += 1
        self.weights.append(self.model[0].weight.detach().clone())
        bad = self.calls >= self.at
        if self.where == "loss":
            term = self.extra * 0 + (math.inf if bad else 1.0)
        else:
            term = (self.extra if bad else self.extra + 1) ** 2
            term = term.sqrt() * 0  # the slope of a root at 0 is 0 / 0
        return Loss(loss.value + term, {**loss.metrics, "kinetic": term.detach()})


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(
    "where, message",
    [("loss", "the loss is inf: kinetic is inf"), ("gradient", "gradient of extra")],
)
def test_a_value_that_is_not_finite_stops_before_the_update(
    where, message, deferred, tmp_path, monkeypatch
):
    """``deferred`` is the way of CUDA: a flag on the device, read when something is logged."""
    if deferred:
        monkeypatch.setattr(gradient, "DEFERRED", ("cpu",))
    objective = Breaks(14, where)
    trainer = Trainer(steps=50, checkpoint_every=6, out=tmp_path, **quiet)
    with pytest.raises(TrainingError, match=message) as caught:
        trainer.fit(objective, product_samples())
    error = caught.value
    assert error.step == 14 and "step 14" in str(error) and str(error.checkpoint) in str(error)
    # Found at once or at the next logged step, but no update was made since the bad one.
    assert objective.calls == (18 if deferred else 14)  # 18: checked before the next checkpoint
    assert torch.equal(objective.model[0].weight, objective.weights[13])
    assert not torch.equal(objective.weights[13], objective.weights[12])
    good = load_state(error.checkpoint)
    assert good["step"] == 12
    assert torch.equal(good["objective"]["model.0.weight"], objective.weights[12])
    with pytest.raises(TrainingError) as caught:
        Trainer(steps=50, **quiet).fit(Breaks(3, where), product_samples())
    assert caught.value.checkpoint is None


def test_the_deferred_check_changes_no_number(monkeypatch):
    now = Trainer(steps=30, **quiet).fit(Regression(), product_samples())
    monkeypatch.setattr(gradient, "DEFERRED", ("cpu",))
    later = Trainer(steps=30, **quiet).fit(Regression(), product_samples())
    assert now.history["loss"] == later.history["loss"]
    for a, b in zip(now.model.parameters(), later.model.parameters(), strict=True):
        assert torch.equal(a, b)


def wrong(value, metrics=None):
    class Wrong(Location):
        def forward(self, batch):
            value_ = value(self.centre, batch)
            return value_ if metrics is None else Loss(value_, metrics)

    return Wrong()


@pytest.mark.parametrize(
    "objective, message",
    [
        (wrong(lambda c, x: c.sum()), "must return a Loss"),
        (wrong(lambda c, x: c.detach().sum(), {}), "depends on no parameter"),
        (wrong(lambda c, x: c.sum(), {"loss": torch.zeros(())}), "'loss' is taken"),
        (wrong(lambda c, x: c.sum(), {"a": torch.zeros(2)}), "metric 'a' must be a scalar"),
        (Location().requires_grad_(False), "no parameter that requires a gradient"),
    ],
)
def test_what_is_no_objective_is_refused(objective, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Trainer(steps=1, **quiet).fit(objective, Samples(torch.randn(8)))


@pytest.mark.parametrize(
    "field, value",
    [
        ("steps", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", math.nan),
        ("ema", 1.0),
        ("seed", -1),
        ("warmup", 2000),
        ("clip", 0.0),
        ("weight_decay", -1.0),
        ("decay", "exponential"),
        ("dtype", "float16"),
        ("log", "wandb"),
        ("best_mode", "least"),
        ("update", "adagrad"),
        ("eval_every", 0),
    ],
)
def test_settings_are_checked(field, value):
    with pytest.raises(ValueError, match=field):
        Trainer(**{field: value})
    with pytest.raises(TypeError):
        Trainer(update=[])
    with pytest.raises(ValueError, match="clip"):
        Trainer(update="lbfgs", clip=1.0)


def test_the_objective_draws_from_its_generator_slot_only():
    state = torch.get_rng_state()
    runs = []
    for _ in range(2):
        objective = Regression(generator_slot=True)
        runs.append(Trainer(steps=12, **quiet).fit(objective, product_samples()).history["loss"])
        assert objective.generator is None  # the slot is given back
    assert runs[0] == runs[1]
    other = Trainer(steps=12, seed=1, **quiet).fit(
        Regression(generator_slot=True), product_samples()
    )
    assert other.history["loss"] != runs[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_compiled_objective_gives_the_same_model(monkeypatch):
    # Dynamo traces for real; its eager backend spares the test a C++ compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, compiled = (
        Trainer(steps=5, compile=flag, **quiet).fit(Regression(), product_samples())
        for flag in (False, True)
    )
    for (name, a), (other, b) in zip(
        plain.model.named_parameters(), compiled.model.named_parameters(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_progress_shows_the_loss(monkeypatch):
    import tqdm.auto

    bars = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, *args, **kwargs):
            assert kwargs.pop("disable") is None
            super().__init__(*args, disable=False, **kwargs)
            bars.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    trainer = Trainer(steps=20, progress=True, device="cpu")
    result = trainer.fit(Regression(), product_samples())
    assert bars[0].n == 20 and bars[0].postfix == f"loss {result.history['loss'][-1]:.4g}"


def test_importing_the_trainer_loads_no_heavy_package():
    code = (
        "import torch, sys; before = set(sys.modules); import sciflow.train; "
        "new = set(sys.modules) - before; "
        "print([m for m in ('matplotlib', 'tqdm', 'tqdm.auto', 'safetensors', 'tensorboard', "
        "'torch.utils.tensorboard', 'ot', 'mdtraj', 'torch._dynamo') if m in new])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
