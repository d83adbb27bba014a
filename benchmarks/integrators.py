"""``sciflow.integrate`` against torchdiffeq, torchsde, zuko, diffrax and loops written by hand."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torchdiffeq import odeint

import sciflow
from benchmarks.harness import conditions, race, short
from benchmarks.neural_fields import BATCH, GOAL, neural, relative


def run(device: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    tables: dict[str, Any] = {}
    for name, gain in (("easy", 4.0), ("hard", 40.0)):
        for dim in (2, 32):
            tables |= neural(f"{name} d={dim}", dim, gain, device)
            print(f"MLP {name}, d={dim}: done", flush=True)
    for title, measure in {
        "rk4, 100 steps, field -y, 512x2": constant_steps,
        "dopri5 1e-5, oscillator to t=30, 512x2": cheap_adaptive,
        "Euler-Maruyama, 1000 steps, Ornstein-Uhlenbeck, 4096x2": stochastic,
        "leapfrog h=0.05, chain n=32, 1e4 steps, float64": symplectic,
        "Robertson to t=4e5, 64 samples, float64": stiff,
    }.items():
        tables[title] = measure(device)
        print(f"{title}: done", flush=True)
    about = conditions(device, "torchdiffeq", "torchsde", "zuko", "diffrax", "jax")
    return {"conditions": about, "goal": GOAL, "tables": tables}


def constant_steps(device: str) -> dict[str, Any]:
    y0, t = torch.randn(BATCH, 2, device=device), torch.tensor([0.0, 1.0], device=device)
    grid = torch.linspace(0.0, 1.0, 101, device=device)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -y

    def by_hand() -> torch.Tensor:
        y, h = y0, 0.01
        for i in range(100):
            s = grid[i]
            k1 = field(s, y)
            k2 = field(s + h / 3, y + h / 3 * k1)
            k3 = field(s + 2 * h / 3, y + h * (k2 - k1 / 3))
            k4 = field(s + h, y + h * (k1 - k2 + k3))
            y = y + h / 8 * (k1 + 3 * (k2 + k3) + k4)
        return y

    solvers = {
        "sciflow": lambda: sciflow.integrate(field, y0, t, method="rk4", dt=0.01).y[-1],
        "sciflow compiled": lambda: sciflow.integrate(
            field, y0, t, method="rk4", dt=0.01, compile=True
        ).y[-1],
        "torchdiffeq": lambda: odeint(field, y0, t, method="rk4", options={"step_size": 0.01})[-1],
        "hand loop": by_hand,
    }
    exact = y0.double() * torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    with torch.no_grad():
        times = race(solvers, device, rounds=15)
        return {
            n: {"error": relative(s(), exact), "nfe": 400} | short(times[n], device)
            for n, s in solvers.items()
        }


def cheap_adaptive(device: str) -> dict[str, Any]:
    y0, t = torch.randn(BATCH, 2, device=device), torch.tensor([0.0, 30.0], device=device)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], device=device)
    calls = 0

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return y @ turn

    solvers = {
        "sciflow": lambda: sciflow.integrate(field, y0, t, rtol=1e-5, atol=1e-5).y[-1],
        "torchdiffeq": lambda: odeint(field, y0, t, method="dopri5", rtol=1e-5, atol=1e-5)[-1],
    }
    exact = y0.double() @ torch.linalg.matrix_exp(30 * turn.double())
    rows = {}
    with torch.no_grad():
        times = race(solvers, device, rounds=7)
        for name, solve in solvers.items():
            calls = 0
            error = relative(solve(), exact)
            rows[name] = {"error": error, "nfe": calls} | short(times[name], device)
            rows[name]["us_per_nfe"] = 1e3 * rows[name]["ms_min"] / calls
    return rows


def stochastic(device: str) -> dict[str, Any]:
    """Euler-Maruyama with steps of 2**-8; the hand loop has no path that can be asked again."""
    rate, noise, n, h = 1.0, 0.5, 1000, 2.0**-8
    y0 = torch.ones(4096, 2, device=device)
    t = torch.tensor([0.0, n * h], device=device)

    class Peer(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return -rate * y

        def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.full_like(y, noise)

    field = sciflow.SDE(lambda t, y: -rate * y, noise)

    def by_hand() -> torch.Tensor:
        generator, y, root = torch.Generator(device).manual_seed(0), y0, noise * h**0.5
        for _ in range(n):
            dw = torch.randn(y.shape, generator=generator, device=device)
            y = y + h * (-rate * y) + root * dw
        return y

    solvers: dict[str, Callable[[], torch.Tensor]] = {
        "sciflow": lambda: sciflow.integrate(
            field, y0, t, method="euler_maruyama", dt=h, seed=0
        ).y[-1],
        "hand loop": by_hand,
    }
    try:
        import torchsde
    except ImportError:
        pass
    else:
        solvers["torchsde"] = lambda: torchsde.sdeint(Peer(), y0, t, dt=h, method="euler")[-1]
    end = torch.tensor(-rate * n * h, dtype=torch.float64)
    variance = noise**2 * (1 - float(torch.exp(2 * end))) / (2 * rate)
    with torch.no_grad():
        times = race(solvers, device, rounds=5)
        return {
            name: {
                "mean_in_se": float(
                    (solve().double().mean() - end.exp()) / (variance / y0.numel()) ** 0.5
                ),
                "variance_in_se": float(
                    (solve().double().var() / variance - 1) / (2 / y0.numel()) ** 0.5
                ),
                "nfe": n,
            }
            | short(times[name], device)
            for name, solve in solvers.items()
        }


class Springs:
    """Unit masses between unit springs, both ends at a wall; energy and force by hand."""

    def __call__(self, q: torch.Tensor) -> torch.Tensor:
        """Energy per sample."""
        wall = torch.zeros_like(q[:, :1])
        return 0.5 * torch.cat([wall, q, wall], 1).diff(dim=1).square().sum(1)

    def force(self, q: torch.Tensor) -> torch.Tensor:
        """Minus the slope of the energy; padding, which the compiler gets right."""
        pad = torch.nn.functional.pad
        return pad(q[:, 1:], (0, 1)) + pad(q[:, :-1], (1, 0)) - 2 * q


def symplectic(device: str) -> dict[str, Any]:
    """Energy error and time; torchdiffeq runs a tenth of the steps, and its time is times ten."""
    torch.manual_seed(0)
    steps, h, springs = 10_000, 0.05, Springs()
    double = {"dtype": torch.float64, "device": device}
    q, p = torch.randn(1, 32, **double), torch.randn(1, 32, **double)
    field = sciflow.Hamiltonian(springs)
    start = float(field.energy(q, p))

    def ours(n: int, compile: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        t = torch.tensor([0.0, n * h], **double)
        y = sciflow.integrate(field, (q, p), t, method="leapfrog", dt=h, compile=compile).y
        return y[0][-1], y[1][-1]

    def peer(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        t = torch.tensor([0.0, n * h], **double)
        y = odeint(
            lambda t, y: (y[1], springs.force(y[0])), (q, p), t, method="rk4",
            options={"step_size": h},
        )  # fmt: skip
        return y[0][-1], y[1][-1]

    def by_hand(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, v, force = q, p, springs.force(q)
        for _ in range(n):
            v = torch.add(v, force, alpha=0.5 * h)
            x = torch.add(x, v, alpha=h)
            force = springs.force(x)
            v = torch.add(v, force, alpha=0.5 * h)
        return x, v

    solvers: dict[str, Callable[[int], tuple[torch.Tensor, torch.Tensor]]] = {
        "sciflow": ours,
        "sciflow compiled": lambda n: ours(n, compile=True),
        "torchdiffeq rk4": peer,
        "hand loop": by_hand,
    }
    part = {"torchdiffeq rk4": 10}
    with torch.no_grad():
        times = race(
            {n: _steps(solve, steps // part.get(n, 1)) for n, solve in solvers.items()},
            device,
            rounds=3,
        )
        rows: dict[str, Any] = {}
        kind = "cpu" if device == "cpu" else "wall"
        for name, solve in solvers.items():
            n = steps // part.get(name, 1)
            rows[name] = {
                "energy_error": abs(float(field.energy(*solve(n))) / start - 1),
                "steps_timed": n,
                "us_per_step": 1e3 * times[name][f"{kind}_ms_min"] / n,
                "us_per_step_median": 1e3 * times[name][f"{kind}_ms_median"] / n,
            }
    for row in rows.values():
        row["this/torchdiffeq"] = row["us_per_step"] / rows["torchdiffeq rk4"]["us_per_step"]
    return rows


def _steps(solve: Callable[[int], Any], n: int) -> Callable[[], Any]:
    return lambda: solve(n)


def stiff(device: str) -> dict[str, Any]:
    """All samples in one solve against scipy's Radau, sample by sample; the same tolerances."""
    torch.manual_seed(0)
    a = 0.5 + 0.5 * torch.rand(64, dtype=torch.float64, device=device)
    y0 = torch.stack([a, torch.zeros_like(a), 1 - a], 1)
    t = torch.tensor([0.0, 4e5], dtype=torch.float64, device=device)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, v, w = y.unbind(-1)
        slow, mid, fast = 0.04 * x, 1e4 * v * w, 3e7 * v**2
        return torch.stack([mid - slow, slow - mid - fast, fast], -1)

    def ours(batch: Literal["joint", "each"]) -> Callable[[], torch.Tensor]:
        return lambda: sciflow.integrate(
            field, y0, t, method="rodas4", rtol=1e-6, atol=1e-10, batch=batch
        ).y[-1]

    def radau(rtol: float, atol: float) -> torch.Tensor:
        def slopes(t: float, y: Any) -> list[float]:
            slow, mid, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
            return [mid - slow, slow - mid - fast, fast]

        ends = [
            solve_ivp(slopes, (0.0, 4e5), row, method="Radau", rtol=rtol, atol=atol).y[:, -1]
            for row in y0.tolist()
        ]
        return torch.tensor(np.array(ends), dtype=torch.float64, device=device)

    solvers: dict[str, Callable[[], torch.Tensor]] = {
        "sciflow rodas4, joint": ours("joint"),
        "sciflow rodas4, each": ours("each"),
        "scipy Radau, one by one": lambda: radau(1e-6, 1e-10),
    }
    exact = radau(1e-10, 1e-14)
    with torch.no_grad():
        times = race(solvers, device, rounds=2)
        return {
            n: {"error": relative(s(), exact)} | short(times[n], device)
            for n, s in solvers.items()
        }
