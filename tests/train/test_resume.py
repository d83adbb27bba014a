import errno
import logging
import os
import signal

import pytest
import torch
from train_problems import Location, Regression, product_data, product_samples, same

from sciflow.errors import DataError, TrainingError
from sciflow.train import Samples, Trainer, Walkers, trainer
from sciflow.train.checkpoint import load_state

quiet = {"progress": False, "device": "cpu", "dtype": "float64"}


class Alarm:
    """Calls ``ring`` at the ``at``-th call, once."""

    def __init__(self, at, ring):
        self.at, self.ring, self.calls = at, ring, 0

    def __call__(self):
        self.calls += 1
        if self.calls == self.at:
            self.ring()


def never():
    return Alarm(0, lambda: None)


def break_off():
    raise KeyboardInterrupt


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


class Pairs:
    """Fixed data by way of a source that may be cut off while it draws."""

    def __init__(self, alarm):
        self.alarm, self.samples = alarm, product_samples()

    def sample(self, n, generator):
        batch = self.samples.sample(n, generator)
        self.alarm()
        return batch


class WalkingPairs(Walkers):
    """Random-walk inputs with their products; cut off after the walkers have moved."""

    def __init__(self, alarm):
        def move(x, g):
            y = 0.9 * x + 0.4 * torch.randn(x.shape, generator=g, dtype=x.dtype)
            return y

        super().__init__(product_data(50)[0], move)
        self.alarm = alarm

    def sample(self, n, generator):
        x = super().sample(n, generator)
        self.alarm()
        return x, x.prod(1, keepdim=True)


def job(tmp_path, name, kind, alarms, evaluate_alarm=None, **settings):
    """A trainer, and the objective, source and evaluation that it fits."""
    draw, forward = alarms
    objective = Regression(norm=True, generator_slot=True)
    objective.register_forward_hook(lambda *_: forward())
    xv, yv = product_data(64)
    ring = evaluate_alarm or never()

    def evaluate(model):
        ring()
        return float((model(xv) - yv).square().mean().detach())

    options = {"steps": 23, "batch_size": 20, "lr": 0.02, "eval_every": 4, "log_every": 3}
    fitter = Trainer(out=tmp_path / name, checkpoint_every=5, **options, **settings, **quiet)
    return fitter, (objective, kind(draw), evaluate)


def leftovers(result, objective, folder):
    """All that two runs must agree on."""
    state = load_state(folder / "checkpoint.pt")
    del state["seconds"]
    return {
        "model": dict(result.model.state_dict()),
        "objective": dict(objective.state_dict()),
        "step": result.history.step,
        "history": {name: result.history[name] for name in result.history.names},
        "best": result.best_step,
        "csv": (folder / "metrics.csv").read_text(),
        "state": state,
    }


CUTS = {
    "source": lambda: ((Alarm(12, break_off), never()), None),
    "objective": lambda: ((never(), Alarm(15, break_off)), None),
    "evaluation": lambda: ((never(), never()), Alarm(3, break_off)),
    "ctrl-c in a step": lambda: ((never(), Alarm(14, press_ctrl_c)), None),
    "first step": lambda: ((Alarm(1, break_off), never()), None),
    "last step": lambda: ((Alarm(23, press_ctrl_c), never()), None),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", [Pairs, WalkingPairs])
def test_a_resumed_run_equals_one_without_interruption(tmp_path, kind, cut, caplog):
    """Adam, average, best weights, walkers, generators, history, log: bit for bit."""
    fitter, parts = job(tmp_path, "whole", kind, (never(), never()))
    whole = leftovers(fitter.fit(*parts), parts[0], tmp_path / "whole")

    alarms, ring = CUTS[cut]()
    fitter, parts = job(tmp_path, "cut", kind, alarms, ring)
    with caplog.at_level(logging.WARNING, logger="sciflow"):
        first = fitter.fit(*parts)
    assert first.interrupted and first.checkpoint == tmp_path / "cut" / "checkpoint.pt"
    assert "resume from step" in caplog.text
    fitter, parts = job(tmp_path, "cut", kind, (never(), never()))
    second = fitter.fit(*parts, resume=True)
    assert not second.interrupted
    resumed = leftovers(second, parts[0], tmp_path / "cut")
    for name, value in whole.items():
        assert same(value, resumed[name]), name


def test_the_best_weights_before_the_interrupt_are_returned_after_it(tmp_path):
    figures, seen = [3.0, 1.0, 2.0, 2.5, 1.5], []

    def evaluate(model):
        seen.append({name: x.clone() for name, x in model.state_dict().items()})
        return figures[len(seen) - 1]

    def fit(source, **kwargs):
        fitter = Trainer(steps=20, eval_every=4, out=tmp_path, **quiet)
        return fitter.fit(Regression(), source, evaluate, **kwargs)

    assert fit(Pairs(Alarm(11, break_off))).best_step == 8  # evaluated at 4 and 8
    result = fit(product_samples(), resume=True)
    assert result.best_step == 8 and len(seen) == 5
    assert result.history.series("eval/value") == ([4, 8, 12, 16, 20], figures)
    assert same(dict(result.model.state_dict()), seen[1])


@pytest.mark.parametrize("update, lr", [("sgd", 0.02), ("lbfgs", 1.0), ("adamw", 0.01)])
def test_every_update_resumes(tmp_path, update, lr):
    def fit(name, alarm, **kwargs):
        objective = Regression()
        source = Pairs(alarm)
        fitter = Trainer(
            steps=4, batch_size=50, lr=lr, update=update, out=tmp_path / name, ema=0.0, **quiet
        )
        result = fitter.fit(objective, source, **kwargs)
        return result, leftovers(result, objective, tmp_path / name)

    _, whole = fit("whole", never())
    assert fit("cut", Alarm(3, press_ctrl_c))[0].interrupted
    _, resumed = fit("cut", never(), resume=True)
    assert same(whole, resumed)


def test_the_second_ctrl_c_stops_at_once_and_keeps_the_last_checkpoint(tmp_path, caplog):
    class Impatient:
        """An update that is cut by the second press after it moved the parameter."""

        calls = 0

        def step(self, objective, batch):
            self.calls += 1
            with torch.no_grad():
                objective.centre += 1
            if self.calls == 8:
                press_ctrl_c()
                press_ctrl_c()
            return objective(batch)

    objective = Location()
    fitter = Trainer(
        steps=20, update=Impatient(), out=tmp_path, checkpoint_every=5, ema=0.0, **quiet
    )
    result = fitter.fit(objective, Samples(torch.zeros(4)))
    assert result.interrupted and load_state(result.checkpoint)["step"] == 5
    assert "once more stops at once" in caplog.text and "resume from step 5" in caplog.text
    assert objective.centre.item() == 7  # the half-made update was undone
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_without_a_folder_returns_the_model(caplog):
    result = Trainer(steps=50, ema=0.0, **quiet).fit(Regression(), Pairs(Alarm(8, break_off)))
    assert result.interrupted and result.checkpoint is None and result.best_step == 7
    assert "interrupted at step 7 of 50" in caplog.text


def test_resuming_a_finished_run_returns_it_again(tmp_path):
    fitter, parts = job(tmp_path, "a", Pairs, (never(), never()))
    first = fitter.fit(*parts)
    fitter, parts = job(tmp_path, "a", Pairs, (Alarm(1, break_off), never()))
    again = fitter.fit(*parts, resume=True)  # draws nothing
    assert same(dict(first.model.state_dict()), dict(again.model.state_dict()))
    assert again.best_step == first.best_step and again.history.step == first.history.step
    assert again.seconds >= first.seconds * 0.5


def test_a_constant_rate_may_be_continued_for_longer(tmp_path):
    def fit(steps, name, **kwargs):
        fitter = Trainer(steps=steps, decay="constant", out=tmp_path / name, **quiet)
        return fitter.fit(Regression(), product_samples(), **kwargs)

    fit(15, "a")
    longer, whole = fit(30, "a", resume=True), fit(30, "b")
    assert same(dict(longer.model.state_dict()), dict(whole.model.state_dict()))
    with pytest.raises(DataError, match="made 30 steps, steps is 20"):
        fit(20, "a", resume=True)


def test_nothing_to_resume_is_said_and_an_old_run_is_replaced_with_a_notice(tmp_path, caplog):
    fitter = Trainer(steps=2, out=tmp_path, **quiet)
    result = fitter.fit(Regression(), product_samples(), resume=True)
    assert "no checkpoint in" in caplog.text and result.best_step == 2
    caplog.clear()
    fitter.fit(Regression(), product_samples())
    assert f"replacing the earlier run in {tmp_path}" in caplog.text
    with pytest.raises(ValueError, match="out"):
        Trainer(steps=2, **quiet).fit(Regression(), product_samples(), resume=True)


def test_other_settings_and_other_models_are_refused(tmp_path):
    Trainer(steps=4, out=tmp_path, **quiet).fit(Regression(), product_samples())
    before = (tmp_path / "checkpoint.pt").read_bytes()
    other = Trainer(steps=4, lr=0.5, seed=3, out=tmp_path, **quiet)
    with pytest.raises(DataError, match="seed was 0, is 3|lr was 0.001, is 0.5"):
        other.fit(Regression(), product_samples(), resume=True)
    with pytest.raises(DataError, match="running_mean is missing|is missing"):
        Trainer(steps=4, out=tmp_path, **quiet).fit(
            Regression(norm=True), product_samples(), resume=True
        )
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_truncated_checkpoint_is_named(tmp_path):
    fitter = Trainer(steps=2, out=tmp_path, **quiet)
    path = fitter.fit(Regression(), product_samples()).checkpoint
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match=f"{path} is truncated"):
        fitter.fit(Regression(), product_samples(), resume=True)


def test_an_unwritable_folder_is_reported_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    source = Pairs(Alarm(1, break_off))
    fitter = Trainer(steps=2, out=tmp_path / "file" / "run", **quiet)
    with pytest.raises(TrainingError, match=f"cannot write to the folder {tmp_path}/file/run"):
        fitter.fit(Regression(), source)
    assert source.alarm.calls == 0


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_reported_before_training(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(trainer, "probe", lambda folder, size: asked.append(size) or full())
    source = Pairs(Alarm(1, break_off))
    with pytest.raises(TrainingError, match=f"folder {tmp_path}: .*No space left"):
        Trainer(steps=2, out=tmp_path, **quiet).fit(Regression(), source)
    assert source.alarm.calls == 0
    monkeypatch.undo()
    result = Trainer(steps=2, out=tmp_path, **quiet).fit(Regression(), product_samples())
    assert asked[0] > result.checkpoint.stat().st_size  # what was asked for would have done


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    source = Pairs(Alarm(8, lambda: monkeypatch.setattr(trainer, "save_state", full)))
    fitter = Trainer(steps=20, checkpoint_every=5, out=tmp_path, **quiet)
    with pytest.raises(TrainingError, match=f"folder {tmp_path}.*last good checkpoint") as caught:
        fitter.fit(Regression(), source)
    assert caught.value.step == 10 and load_state(caught.value.checkpoint)["step"] == 5


def test_a_state_that_cannot_be_read_back_is_refused_at_the_start(tmp_path):
    class Odd(Pairs):
        def state_dict(self):
            return {"alarm": Alarm(0, print)}

        def load_state_dict(self, state):
            raise AssertionError

    with pytest.raises(TypeError, match="only tensors and plain values"):
        Trainer(steps=2, out=tmp_path, **quiet).fit(Regression(), Odd(never()))


def test_no_log_and_tensorboard(tmp_path):
    Trainer(steps=2, out=tmp_path / "a", log=None, **quiet).fit(Regression(), product_samples())
    assert os.listdir(tmp_path / "a") == ["checkpoint.pt"]
    pytest.importorskip("tensorboard")
    fitter = Trainer(steps=2, out=tmp_path / "b", log="tensorboard", **quiet)
    fitter.fit(Regression(), product_samples())
    assert any(name.startswith("events.out") for name in os.listdir(tmp_path / "b"))
