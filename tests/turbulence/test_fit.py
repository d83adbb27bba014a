"""Fits of forecasters: they learn, resume, stay away from what is set aside."""

import pytest
import torch

from sciflow import DataError, turbulence
from sciflow.turbulence.baselines import k_epsilon, relative_l2
from sciflow.turbulence.calibrate import closure_error
from sciflow.turbulence.knowledge import knowledge

QUICK = {"members": 2, "width": 16, "batch_size": 64, "starts": 6, "progress": False}


@pytest.fixture(scope="module")
def runs():
    return turbulence.decays("train")[::10]


def test_a_short_fit_beats_the_standard_model(runs):
    train = turbulence.decays("train")[::6]
    unseen = turbulence.decays("calibrate")[::8]
    options = QUICK | {"members": 1, "batch_size": 48}
    forecaster = turbulence.fit(train, unseen, steps=80, lr=5e-3, horizon=(0.5, 2.5), **options)
    assert not forecaster.interrupted and len(forecaster.history) > 0
    ours, standard = 0.0, 0.0
    for run in turbulence.decays("test")[::4]:
        args = (run.k[0], run.eps[0], run.nu, run.t)
        with torch.no_grad():
            found = forecaster.forecast(*args, **knowledge(run, 0, "both"))
        ours += relative_l2(run.t, found.eps, run.eps)
        plain = k_epsilon(float(run.k[0]), float(run.eps[0]), run.t)[1]
        standard += relative_l2(run.t, plain, run.eps)
    assert ours < 0.6 * standard


def test_resume_gives_the_same(runs, tmp_path):
    options = {"steps": 8, "horizon": (0.3, 0.6), "calibration": runs[:2]} | QUICK
    whole = turbulence.fit(runs[2:6], out=tmp_path / "a", **options)

    from sciflow.train import Trainer

    original = Trainer.fit

    def until_half(self, objective, source, **more):

        class Half(type(source)):
            drawn = 0

            def sample(self, n, generator):
                Half.drawn += 1
                if Half.drawn > 4:
                    raise KeyboardInterrupt
                return super().sample(n, generator)

        source.__class__ = Half
        return original(self, objective, source, **more)

    Trainer.fit = until_half
    try:
        half = turbulence.fit(runs[2:6], out=tmp_path / "b", **options)
    finally:
        Trainer.fit = original
    assert half.interrupted
    rest = turbulence.fit(runs[2:6], out=tmp_path / "b", resume=True, **options)
    for (name, a), (_, b) in zip(
        whole.state_dict().items(), rest.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_runs_that_are_set_aside_touch_no_weight(runs):
    options = {"steps": 4, "horizon": (0.3, 0.5)} | QUICK
    one = turbulence.fit(runs[:4], runs[4:5], **options)
    two = turbulence.fit(runs[:4], runs[5:6], **options)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.calibration.scale != two.calibration.scale


def test_runs_of_different_lengths_and_without_spectra():
    runs = []
    for i, (C2, last) in enumerate(((1.6, 4.0), (1.7, 9.0), (1.8, 20.0))):
        t = torch.linspace(0.0, last, 50, dtype=torch.float64)
        k, eps = k_epsilon(1.0, 1.0, t, C2)
        runs.append(turbulence.DecayRun(t=t, k=k, eps=eps, nu=0.01, name=f"law{i}-0"))
    forecaster = turbulence.fit(runs, steps=6, horizon=(0.3, 0.6), **QUICK)
    assert torch.isfinite(forecaster.forecast(1.0, 1.0, 0.01, [0.0, 1.0]).eps).all()


def test_error_of_the_closure(runs):
    eps, k = closure_error(runs)
    assert 0.01 < eps < 0.2 and 0.01 < k < 0.3
    assert closure_error([]) == (0.07, 0.05)  # where nothing tells


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"members": 3}, ValueError, "must be a multiple of members = 3"),
        ({"horizon": (2.0, 1.0)}, ValueError, "horizon must be"),
        ({"measured": 1.0}, ValueError, "measured must be between"),
        ({"starts": 1}, ValueError, "starts must be at least 2"),
        ({"memory": -1}, ValueError, "memory must not be negative"),
        ({"widht": 3}, TypeError, "widht"),
    ],
)
def test_refused(unchecked, runs, options, error, match):
    with pytest.raises(error, match=match):
        turbulence.fit(runs, runs, **QUICK | options)
    with pytest.raises(DataError, match="two decays or more"):
        turbulence.fit(runs[:1])
