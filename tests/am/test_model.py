"""The potential: its derivatives, units, saving, and what it refuses."""

import pytest
import torch

from sciflow import DataError, Snapshots, am
from sciflow.am.model import ActionPotential
from sciflow.am.scale import Scale


@pytest.fixture
def model(generator, dtype):
    scale = Scale(center=(1.0, -2.0, 0.5), length=3.0, start=2.0, duration=4.0)
    return ActionPotential(scale, width=16, depth=2, generator=generator).to(dtype)


def test_velocity_is_the_gradient_of_the_potential(model):
    t, x, step = 3.3, torch.randn(6, 3) * 3, 1e-6
    for i in range(3):
        shift = torch.zeros(3).index_fill_(0, torch.tensor([i]), step)
        slope = (model.potential(t, x + shift) - model.potential(t, x - shift)) / (2 * step)
        torch.testing.assert_close(model.velocity(t, x)[:, i], slope, atol=1e-7, rtol=1e-6)


def test_time_derivative(model):
    t, x, step = torch.rand(6), torch.randn(6, 3), 1e-6
    _, s_t, _ = model.derivatives(t, x, create_graph=False)
    slope = (model(t + step, x) - model(t - step, x)) / (2 * step)
    torch.testing.assert_close(s_t, slope.detach(), atol=1e-7, rtol=1e-6)


def test_times_per_sample_agree_with_one_time(model):
    x = torch.randn(4, 3)
    times = torch.tensor([2.0, 3.0, 4.0, 6.0])
    each = torch.cat([model.velocity(float(t), x[i : i + 1]) for i, t in enumerate(times)])
    torch.testing.assert_close(model.velocity(times, x), each)


def test_trajectories_follow_the_velocity_and_turn_back(model):
    x = torch.randn(5, 3)
    t = torch.linspace(2.0, 6.0, 9)
    moved = model.trajectories(x, t)
    assert moved.x.shape == (9, 5, 3)
    assert moved.log_weight is None
    fine = model.trajectories(x, t, n_steps=50)
    torch.testing.assert_close(moved.x, fine.x, atol=1e-4, rtol=1e-4)
    back = model.trajectories(fine.x[-1], t.flip(0), n_steps=50)
    torch.testing.assert_close(back.x[-1], x, atol=1e-7, rtol=1e-7)


@pytest.fixture
def noisy(generator, dtype):
    scale = Scale(center=(1.0, -2.0, 0.5), length=3.0, start=2.0, duration=4.0)
    return ActionPotential(scale, 16, 2, generator, sigma=0.7, growth_penalty=0.05).to(dtype)


def test_predict_in_both_directions_and_any_order(model):
    x = torch.randn(5, 3)
    found = model.predict(x, 3.0, [6.0, 3.0, 2.0, 4.0, 2.5, 6.0], n_steps=40)
    assert found.t.tolist() == [6.0, 3.0, 2.0, 4.0, 2.5, 6.0] and found.log_weight is None
    for i, t in enumerate(found.t.tolist()):
        direct = model.trajectories(x, torch.tensor([3.0, t]), n_steps=80).x[-1] if t != 3 else x
        torch.testing.assert_close(found.x[i], direct, atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="times must"):
        model.predict(x, 3.0, [float("nan")])
    with pytest.raises(ValueError, match="times must"):
        model.predict(x, 3.0, [])


def test_growth_is_the_penalty_times_the_potential(noisy):
    t, x = torch.tensor([2.0, 3.0, 5.0, 6.0]), torch.randn(4, 3)
    torch.testing.assert_close(noisy.growth(t, x), 0.05 * noisy.potential(t, x))


def test_log_weights_are_the_integral_of_growth(noisy):
    """Without noise, against a sum along the path; backwards they fall by what they rose."""
    noisy.sigma = 0.0
    x, t = torch.randn(6, 3), torch.linspace(2.0, 5.0, 301)
    moved = noisy.trajectories(x, t)
    rate = torch.stack([noisy.growth(float(ti), xi) for ti, xi in zip(t, moved.x, strict=True)])
    torch.testing.assert_close(
        moved.log_weight[-1], torch.trapezoid(rate, t, dim=0), atol=1e-4, rtol=1e-4
    )
    assert moved.log_weight[0].abs().max() == 0
    torch.testing.assert_close(moved.mass, moved.log_weight.exp().mean(1))
    torch.testing.assert_close(moved.weights.sum(1), torch.ones(301))
    back = noisy.predict(moved.x[-1], 5.0, [2.0])
    torch.testing.assert_close(back.log_weight[0], -moved.log_weight[-1], atol=1e-4, rtol=1e-4)


def test_noise_has_the_moments_of_its_equation(noisy):
    """A potential that is linear in x: drift b, hence mean b t and variance sigma^2 t."""
    with torch.no_grad():
        for p in noisy.net.parameters():
            p.zero_()
        noisy.net.layers[-1].bias[:3] = torch.tensor([0.4, -0.2, 0.1])
    n = 20_000
    x = torch.zeros(n, 3)
    drift = noisy.velocity(3.0, x[:1])[0]
    moved = noisy.trajectories(x, torch.tensor([2.0, 3.0, 6.0]), n_steps=4, seed=1)
    for k, t in ((1, 1.0), (2, 4.0)):
        variance = 0.7**2 * t
        assert float((moved.x[k].mean(0) - drift * t).abs().max()) < 5 * (variance / n) ** 0.5
        assert float((moved.x[k].var(0) / variance - 1).abs().max()) < 5 * (2 / n) ** 0.5
    again = noisy.trajectories(x, torch.tensor([2.0, 3.0, 6.0]), n_steps=4, seed=1)
    assert torch.equal(again.x, moved.x)
    other = noisy.trajectories(x, torch.tensor([2.0, 3.0, 6.0]), n_steps=4, seed=2)
    assert not torch.equal(other.x, moved.x)


def test_noise_has_no_way_back(noisy):
    with pytest.raises(ValueError, match="backwards"):
        noisy.trajectories(torch.randn(4, 3), torch.tensor([3.0, 2.0]))
    with pytest.raises(ValueError, match="backwards"):
        noisy.predict(torch.randn(4, 3), 3.0, [4.0, 2.5])


@pytest.mark.parametrize("settings", [{"sigma": -1.0}, {"growth_penalty": 0.0}])
def test_noise_and_growth_out_of_range(settings):
    scale = Scale(center=(0.0,), length=1.0, start=0.0, duration=1.0)
    with pytest.raises(ValueError, match=next(iter(settings))):
        ActionPotential(scale, **settings)


def test_growth_is_zero_since_mass_is_conserved(model):
    assert float(model.growth(3.0, torch.randn(4, 3)).abs().max()) == 0.0


def test_save_and_load(model, tmp_path):
    model.measured_action = am.Action(1.25, 1.5)
    model.save(tmp_path / "model.safetensors")
    other = am.load(tmp_path / "model.safetensors").to(torch.get_default_dtype())
    x = torch.randn(4, 3)
    assert torch.equal(other.velocity(3.0, x), model.velocity(3.0, x))
    assert other.action() == model.action()
    assert other.scale == model.scale


def test_truncated_file(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"model\.safetensors"):
        am.load(path)


def test_refusals(model):
    with pytest.raises(ValueError, match=r"\(n, 3\).*\(4, 2\)"):
        model.velocity(3.0, torch.randn(4, 2))
    with pytest.raises(ValueError, match="n_steps"):
        model.trajectories(torch.randn(4, 3), torch.tensor([2.0, 3.0]), n_steps=0)
    with pytest.raises(ValueError, match="finite"):
        model.trajectories(torch.full((4, 3), torch.nan), torch.tensor([2.0, 3.0]))
    with pytest.raises(ValueError, match="not fitted"):
        model.action()


def test_fit_refuses_other_kinds_and_options():
    snapshots = Snapshots([torch.randn(9, 2), torch.randn(9, 2)], [0.0, 1.0])
    with pytest.raises(TypeError, match="stepps"):
        am.fit(snapshots, stepps=3)
    with pytest.raises(DataError, match="same point"):
        am.fit(Snapshots([torch.ones(5, 2), torch.ones(5, 2)], [0.0, 1.0]))
    with pytest.raises(DataError, match="time point 7"):
        am.fit(Snapshots([torch.ones(5, 2)] * 3, [0.0, 1.0, 2.0]), hold_out=(7,))


def test_fit_by_action_matching_transports_a_shift():
    x = torch.randn(400, 2)
    model = am.fit(
        Snapshots([x, x + torch.tensor([2.0, 0.0])], [0.0, 4.0]),
        steps=300,
        device="cpu",
        progress=False,
    )
    moved = model.trajectories(x, torch.tensor([0.0, 4.0])).x[-1]
    # the truth: everything moves by (2, 0), whose action is 2^2 / (2 * 4)
    assert float((moved - x - torch.tensor([2.0, 0.0])).square().mean().sqrt()) < 0.1
    assert model.action().rollout == pytest.approx(0.5, rel=0.05)


def test_noise_and_growth_of_a_constant_field(generator, dtype):
    """With h = 0 and h_0 = c the drift is zero: pure noise, and growth at a constant rate."""
    scale = Scale(center=(1.0, 0.0), length=2.0, start=0.0, duration=4.0)
    model = ActionPotential(scale, 8, 2, generator, sigma=0.5, growth_penalty=0.3).to(dtype)
    last = model.net.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    with torch.no_grad():
        last.bias[-1] = 0.7
    rate = 0.3 * 0.7 * 2.0**2 / 4.0
    x0 = torch.zeros(4000, 2)
    t = torch.tensor([1.0, 2.0, 3.0])
    for steps in (None, 5):
        moved = model.trajectories(x0, t, n_steps=steps, seed=3)
        assert moved.x.shape == (3, 4000, 2)
        variance = moved.x[-1].var(0)
        torch.testing.assert_close(
            variance, torch.full((2,), 0.5), rtol=5 * (2 / 4000) ** 0.5, atol=0
        )
        torch.testing.assert_close(moved.log_weight[-1], torch.full((4000,), 2 * rate))
    torch.testing.assert_close(model.growth(2.0, x0), torch.full((4000,), rate))
    assert torch.equal(model.trajectories(x0, t, seed=3).x, model.trajectories(x0, t, seed=3).x)
    with pytest.raises(ValueError, match="cannot be undone"):
        model.trajectories(x0, t.flip(0))


def test_noise_and_growth_are_saved(generator, dtype, tmp_path):
    scale = Scale(center=(0.0,), length=1.0, start=0.0, duration=1.0)
    model = ActionPotential(scale, 8, 2, generator, sigma=0.5, growth_penalty=0.3).to(dtype)
    model.save(tmp_path / "model.safetensors")
    other = am.load(tmp_path / "model.safetensors")
    assert (other.sigma, other.growth_penalty) == (0.5, 0.3)


@pytest.mark.parametrize("kind", ["entropic", "unbalanced", "entropic+unbalanced"])
def test_kinds_of_flow(kind):
    x = torch.randn(100, 2)
    data = Snapshots([x, x + 1], [0.0, 1.0], masses=[1.0, 2.0])
    model = am.fit(data, kind, steps=10, device="cpu", progress=False)
    assert (model.sigma > 0) == ("entropic" in kind)
    assert (model.growth_penalty is not None) == ("unbalanced" in kind)


def test_unknown_kind(unchecked):
    with pytest.raises(ValueError, match="kind must be one of"):
        am.fit(Snapshots([torch.randn(5, 2)] * 2, [0.0, 1.0]), "mixed")
