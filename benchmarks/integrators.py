"""``sciflow.integrate`` against torchdiffeq, torchsde and a loop written by hand.

Adaptive solvers are compared at equal achieved error: the tolerance of each is the loosest of a
ladder with which its error at the end point is at most the goal.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torchdiffeq import odeint, odeint_adjoint

import sciflow
from benchmarks.harness import conditions, race

BATCH, GOAL = 512, 1e-5
LADDER = [10.0 ** (-k / 2) for k in range(2, 19)]


class Net(torch.nn.Module):
    """A 3x64 tanh network of (y, t) times a gain: 4 is an easy field, 40 a hard one."""

    def __init__(self, dim: int, gain: float) -> None:
        super().__init__()
        sizes = [dim + 1, 64, 64, 64, dim]
        layers: list[torch.nn.Module] = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [torch.nn.Linear(a, b), torch.nn.Tanh()]
        self.layers, self.gain, self.calls = torch.nn.Sequential(*layers[:-1]), gain, 0

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The field at time t; counts its calls."""
        self.calls += 1
        return self.gain * self.layers(torch.cat([y, t.to(y).expand(len(y), 1)], 1))


def run(device: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    tables: dict[str, Any] = {}
    for name, gain in (("easy", 4.0), ("hard", 40.0)):
        for dim in (2, 32):
            tables |= neural(f"{name} d={dim}", dim, gain, device)
    tables["rk4, 100 steps, field -y, 512x2"] = constant_steps(device)
    tables["dopri5 1e-5, oscillator to t=30, 512x2"] = cheap_adaptive(device)
    tables["Euler-Maruyama, 1000 steps, Ornstein-Uhlenbeck, 4096x2"] = stochastic(device)
    tables["leapfrog h=0.05, chain n=32, 1e4 steps, float64"] = symplectic(device)
    tables["Robertson to t=4e5, 64 samples, float64"] = stiff(device)
    about = conditions(device, "torchdiffeq", "torchsde")
    return {"conditions": about, "goal": GOAL, "tables": tables}


def loosest(solve: Callable[[float], torch.Tensor], exact: torch.Tensor) -> float:
    """The loosest tolerance whose error is at most the goal, as is that of the next tighter."""
    errors = [relative(solve(tolerance), exact) for tolerance in LADDER]
    for i in range(len(LADDER) - 1):
        if max(errors[i : i + 2]) <= GOAL:
            return LADDER[i]
    raise RuntimeError(f"no tolerance reaches {GOAL}: {errors}")


def relative(y: torch.Tensor, exact: torch.Tensor) -> float:
    return float((y.detach().double() - exact).norm() / exact.norm())


def neural(title: str, dim: int, gain: float, device: str) -> dict[str, Any]:
    """Forward, and forward with backward, at equal achieved error (float32)."""
    torch.manual_seed(0)
    net = Net(dim, gain).to(device)
    y0, t = torch.randn(BATCH, dim, device=device), torch.tensor([0.0, 1.0], device=device)
    double = Net(dim, gain).to(device).double()
    double.load_state_dict(net.state_dict())
    with torch.no_grad():
        exact = odeint(double, y0.double(), t.double(), method="dopri8", rtol=1e-11, atol=1e-11)[
            -1
        ]

    def ours(method: str) -> Callable[[float], torch.Tensor]:
        return lambda tol: sciflow.integrate(net, y0, t, method=method, rtol=tol, atol=tol).y[-1]

    solvers = {
        "sciflow dopri5": ours("dopri5"),
        "sciflow tsit5": ours("tsit5"),
        "torchdiffeq dopri5": lambda tol: odeint(net, y0, t, method="dopri5", rtol=tol, atol=tol)[
            -1
        ],
        "torchdiffeq dopri5, clipped": lambda tol: odeint(
            net, y0, t, method="dopri5", rtol=tol, atol=tol, options={"step_t": t[-1:]}
        )[-1],
    }
    rows: dict[str, dict[str, Any]] = {}
    with torch.no_grad():
        tolerances = {name: loosest(solve, exact) for name, solve in solvers.items()}
        for name, solve in solvers.items():
            net.calls = 0
            error = relative(solve(tolerances[name]), exact)
            rows[name] = {"tolerance": tolerances[name], "error": error, "nfe": net.calls}
        runs = {name: _bind(solve, tolerances[name]) for name, solve in solvers.items()}
        # Ten evaluations, the floor: a solver's overhead is over its own number of them.
        forward = race(
            runs | {"10 evaluations": lambda: [net(t[0], y0) for _ in range(10)]}, device
        )
    tables = {
        f"dopri5 forward, {title}": {n: rows[n] | _short(forward[n], device) for n in solvers}
    }
    key = "cpu_ms_min" if device == "cpu" else "wall_ms_min"
    for n, row in tables[f"dopri5 forward, {title}"].items():
        row["overhead"] = forward[n][key] / (row["nfe"] * forward["10 evaluations"][key] / 10)

    def adjoint(tol: float) -> torch.Tensor:
        return odeint_adjoint(
            net, y0, t, method="dopri5", rtol=tol, atol=tol, adjoint_params=tuple(net.parameters())
        )[-1]

    def backward(solve: Callable[[float], torch.Tensor], tol: float) -> Callable[[], None]:
        def both() -> None:
            net.zero_grad()
            solve(tol).square().sum().backward()

        return both

    def with_gradient(grad: str) -> Callable[[float], torch.Tensor]:
        return lambda tol: sciflow.integrate(net, y0, t, rtol=tol, atol=tol, grad=grad).y[-1]

    for name in ("checkpoint", "adjoint"):
        solvers[f"sciflow {name}"] = with_gradient(name)
        tolerances[f"sciflow {name}"] = tolerances["sciflow dopri5"]
    solvers["torchdiffeq adjoint"] = adjoint
    tolerances["torchdiffeq adjoint"] = tolerances["torchdiffeq dopri5"]
    both = race({n: backward(s, tolerances[n]) for n, s in solvers.items()}, device, rounds=5)
    tables[f"dopri5 forward + backward, {title}"] = {n: _short(both[n], device) for n in solvers}
    return tables


def _bind(solve: Callable[[float], torch.Tensor], tolerance: float) -> Callable[[], torch.Tensor]:
    return lambda: solve(tolerance)


def _short(row: dict[str, float], device: str) -> dict[str, float]:
    kind = "cpu" if device == "cpu" else "wall"
    return {
        "ms_min": row[f"{kind}_ms_min"],
        "ms_median": row[f"{kind}_ms_median"],
        "wall_ms_min": row["wall_ms_min"],
        "sciflow/this": row["ratio"],
        "of_medians": row["ratio_of_medians"],
    }


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
        "torchdiffeq": lambda: odeint(field, y0, t, method="rk4", options={"step_size": 0.01})[-1],
        "hand loop": by_hand,
    }
    exact = y0.double() * torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    with torch.no_grad():
        times = race(solvers, device, rounds=15)
        return {
            n: {"error": relative(s(), exact), "nfe": 400} | _short(times[n], device)
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
            rows[name] = {"error": error, "nfe": calls} | _short(times[name], device)
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
            | _short(times[name], device)
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
            n: {"error": relative(s(), exact)} | _short(times[n], device)
            for n, s in solvers.items()
        }
