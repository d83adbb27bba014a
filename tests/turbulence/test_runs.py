"""Records of decays: what is refused, and what is made of them, against closed forms."""

import math

import numpy as np
import pytest
import torch

from sciflow import DataError
from sciflow.turbulence import DecayRun, decays, from_series, read_csv, read_runs, write_csv
from sciflow.turbulence.dataset import write_runs
from sciflow.turbulence.readers import read_blastnet, read_comte_bellot, read_taylor_green


def power_law(n=1.2, points=60, k0=2.0, eps0=0.5, last=40.0, **more):
    t = np.linspace(0.0, last, points)
    x = 1 + t * eps0 / (n * k0)
    return {"t": t, "k": k0 * x**-n, "eps": eps0 * x ** (-n - 1), "nu": 0.01} | more


def test_derived_numbers():
    run = DecayRun(**power_law())
    assert run.balance < 1e-4
    torch.testing.assert_close(run.tau, (run.k[0] / run.k).log())
    inner = run.C2[3:-3]
    torch.testing.assert_close(inner, torch.full_like(inner, 1 + 1 / 1.2), rtol=1e-3, atol=0.0)
    assert float(run.Re_T[0]) == pytest.approx(4 / (0.01 * 0.5))
    assert float(run.Re_lambda[0]) == pytest.approx(math.sqrt(20 / 3 * 800))
    assert float(run.eta[0]) == pytest.approx((1e-6 / 0.5) ** 0.25)


def test_resampling_a_power_law():
    run = DecayRun(**power_law())
    t = np.array([0.3, 1.7, 20.0])
    found = run.resample(t=t)
    x = 1 + t * 0.5 / 2.4
    np.testing.assert_allclose(found.k, 2.0 * x**-1.2, rtol=5e-4)
    np.testing.assert_allclose(found.eps, 0.5 * x**-2.2, rtol=5e-4)
    tau = np.array([0.0, 0.5, 1.0])
    again = run.resample(tau=tau)
    np.testing.assert_allclose(again.k, 2.0 * np.exp(-tau), rtol=1e-12)
    np.testing.assert_allclose(again.t, 4.8 * (np.exp(tau / 1.2) - 1), rtol=2e-4, atol=1e-9)
    with pytest.raises(ValueError, match="either tau or t"):
        run.resample()
    with pytest.raises(ValueError, match="t must lie within 0"):
        run.resample(t=[50.0])
    with pytest.raises(ValueError, match="tau must lie within"):
        run.resample(tau=[-0.1])


def test_since_keeps_the_rest():
    run = DecayRun(**power_law(skewness=np.full(60, 0.5)))
    part = run.since(10)
    assert len(part.t) == 50
    torch.testing.assert_close(part.k[0], run.k[10])
    torch.testing.assert_close(part.skewness, run.skewness[10:])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"k": np.r_[2.0, np.full(59, np.nan)]}, r"k\[1\] is not finite"),
        ({"k": -power_law()["k"]}, r"k must be positive; k\[0\]"),
        ({"eps": np.zeros(60)}, r"eps must be positive; eps\[0\] = 0"),
        ({"k": power_law()["k"][::-1].copy()}, r"k must fall.*k\[0\]"),
        ({"t": power_law()["t"][::-1].copy()}, r"t must increase; t\[0\] = 40, t\[1\]"),
        ({"t": np.r_[0.0, 0.0, power_law()["t"][2:]]}, r"t must increase; t\[0\] = 0, t\[1\] = 0"),
        ({"eps": power_law()["eps"][:-1]}, r"eps has shape \(59,\); t has \(60,\)"),
        ({"nu": -1.0}, "nu must be positive; got -1"),
        ({"box": math.inf}, "box must be positive"),
        ({"kappa": np.arange(1.0, 9.0)}, "spectrum and kappa belong together"),
        (
            {"kappa": np.arange(1.0, 9.0), "spectrum": np.ones((60, 7))},
            "spectrum has 7 columns, kappa has 8",
        ),
        ({"kappa": np.arange(0.0, 8.0), "spectrum": np.ones((60, 8))}, "kappa must be positive"),
        ({"kappa": np.arange(1.0, 9.0), "spectrum": -np.ones((60, 8))}, "must not be negative"),
        ({"eps": 1e4 * power_law()["eps"]}, "same units.*refused"),
        ({"eps": 1.1 * power_law()["eps"]}, "differ by"),
        ({"name": "grid", "nu": 0.0}, "decay 'grid': nu"),
    ],
)
def test_refused(unchecked, change, match):
    with pytest.raises(DataError, match=match):
        DecayRun(**power_law() | change)


def test_small_imbalance_is_a_warning_and_a_large_one_can_be_let_pass(caplog):
    values = power_law()
    run = DecayRun(**values | {"eps": 1.03 * values["eps"]})
    assert 0.02 < run.balance < 0.05
    assert "differ by" in caplog.text
    assert DecayRun(**values | {"eps": 1.3 * values["eps"]}, check="ignore").balance > 0.2


def test_dissipation_from_energies_alone(caplog):
    values = power_law(points=80)
    run = from_series(values["t"], values["k"], nu=0.01)
    np.testing.assert_allclose(run.eps[2:-2], values["eps"][2:-2], rtol=0.01)
    assert "smoothing spline" in caplog.text
    noisy = values["k"] * np.exp(0.002 * np.random.default_rng(0).standard_normal(80))
    rough = from_series(values["t"], noisy, nu=0.01, check="ignore")
    error = np.abs(rough.eps.numpy() / values["eps"] - 1)[5:-5]
    assert np.sqrt((error**2).mean()) < 0.08
    with pytest.raises(DataError, match="five values"):
        from_series([0.0, 1.0], [1.0, 0.5], nu=0.1)
    with pytest.raises(DataError, match="k must fall"):
        from_series(np.arange(6.0), np.arange(1.0, 7.0), nu=0.1)


def test_files_keep_what_there_is(tmp_path):
    E = np.random.default_rng(0).random((60, 8)) + 0.1
    full = DecayRun(
        **power_law(skewness=np.full(60, 0.5), palinstrophy=np.ones(60)),
        kappa=np.arange(1.0, 9.0), spectrum=E, box=6.28, k_max=8.0, name="a-1",
        source="simulation",
    )  # fmt: skip
    plain = DecayRun(**power_law(points=20), name="b")
    runs = read_runs(write_runs(tmp_path / "runs.npz", [full, plain]))
    assert [run.name for run in runs] == ["a-1", "b"]
    assert [run.source for run in runs] == ["simulation", "measurement"]
    for name in ("t", "k", "eps"):
        assert torch.equal(getattr(runs[0], name), getattr(full, name))
    torch.testing.assert_close(runs[0].spectrum, full.spectrum, rtol=3e-3, atol=0.0)
    torch.testing.assert_close(runs[0].skewness, full.skewness, rtol=1e-6, atol=0.0)
    assert runs[1].spectrum is None and runs[1].skewness is None and runs[1].box is None
    assert runs[0].k_max == 8.0 and runs[0].box == 6.28
    with pytest.raises(ValueError, match="must end in .npz"):
        write_runs(tmp_path / "runs.csv", [full])
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(DataError, match="no file of decays"):
        read_runs(tmp_path / "other.npz")


def test_csv(tmp_path):
    run = DecayRun(**power_law(skewness=np.full(60, 0.5)), name="grid")
    file = write_csv(tmp_path / "grid.csv", run)
    again = read_csv(file, nu=0.01)
    torch.testing.assert_close(again.eps, run.eps)
    torch.testing.assert_close(again.skewness, run.skewness)
    assert again.name == "grid"
    file.write_text("time,k\n0,1\n1,.5\n")
    with pytest.raises(DataError, match="lacks the columns t, eps; it has time, k"):
        read_csv(file, nu=0.01)
    file.write_text("t,k,eps\n0,1,1\n1,a,1\n")
    with pytest.raises(DataError, match="line 3"):
        read_csv(file, nu=0.01)
    with pytest.raises(DataError, match="cannot be read"):
        read_csv(tmp_path / "none.csv", nu=0.01)


def test_shipped_decays():
    runs = decays("train")
    assert len(runs) == 60
    assert len({run.name.rpartition("-")[0] for run in runs}) == 15
    assert all(run.balance < 2e-3 for run in runs)
    assert min(float((run.k_max * run.eta).min()) for run in runs) > 0.94
    closures = decays("closure")
    assert max(float(run.Re_lambda[20]) for run in closures) > 1000
    assert min(float((run.k_max * run.eta)[20]) for run in closures) < 0.55
    top = max(float(run.Re_lambda[0]) for run in runs)
    assert all(1.5 < float(run.Re_lambda[0]) / top < 2.0 for run in decays("beyond"))
    assert not {r.name for r in runs} & {r.name for r in decays("test", "calibrate", "beyond")}
    with pytest.raises(ValueError, match="purposes must be of"):
        decays("validation")


def test_public_records(data_dir):
    folder = data_dir / "turbulence"
    blast = read_blastnet(folder / "blastnet_hit2048/decay_k_eps.csv")
    assert len(blast.t) == 20 and blast.balance > 0.05
    vortex = read_taylor_green(folder / "tgv/spectral_Re1600_512.gdiag")
    assert float(vortex.eps.max()) == pytest.approx(0.0128575, abs=1e-6)
    kappa, E = read_comte_bellot(folder / "cbc/fds_cbcdata.txt", 0)
    assert np.trapezoid(E, kappa) == pytest.approx(783.5, rel=0.02)
