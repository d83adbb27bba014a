"""Adaptive solvers on a small network, forward and with gradients, at equal achieved error.

The tolerance of each solver is the loosest of a ladder with which its error at the end point is
at most the goal, as is that of the next tighter one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torchdiffeq import odeint, odeint_adjoint

import sciflow
from benchmarks.harness import race, short

BATCH, GOAL = 512, 1e-5
LADDER = [10.0 ** (-k / 2) for k in range(2, 19)]

Solve = Callable[[float], torch.Tensor]


class Net(torch.nn.Module):
    """A 3x64 tanh network of (y, t) times a gain: 4 is an easy field, 40 a hard one."""

    def __init__(self, dim: int, gain: float) -> None:
        super().__init__()
        sizes = [dim + 1, 64, 64, 64, dim]
        layers: list[torch.nn.Module] = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [torch.nn.Linear(a, b), torch.nn.Tanh()]
        self.layers, self.gain = torch.nn.Sequential(*layers[:-1]), gain

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The field at time t."""
        return self.gain * self.layers(torch.cat([y, t.to(y).expand(len(y), 1)], 1))


def neural(title: str, dim: int, gain: float, device: str) -> dict[str, Any]:
    """Both tables of one field (float32)."""
    torch.manual_seed(0)
    net = Net(dim, gain).to(device)
    y0, t = torch.randn(BATCH, dim, device=device), torch.tensor([0.0, 1.0], device=device)
    double = Net(dim, gain).to(device).double()
    double.load_state_dict(net.state_dict())
    with torch.no_grad():
        exact = odeint(double, y0.double(), t.double(), method="dopri8", rtol=1e-11, atol=1e-11)[
            -1
        ]
    diffrax = _diffrax(net, y0, device)

    def ours(**options: Any) -> Solve:
        return lambda tol: sciflow.integrate(net, y0, t, rtol=tol, atol=tol, **options).y[-1]

    def theirs(**options: Any) -> Solve:
        return lambda tol: odeint(net, y0, t, method="dopri5", rtol=tol, atol=tol, **options)[-1]

    solvers: dict[str, Solve] = {
        "sciflow dopri5": ours(),
        "sciflow tsit5": ours(method="tsit5"),
        "torchdiffeq dopri5": theirs(),
        "torchdiffeq dopri5, clipped": theirs(options={"step_t": t[-1:]}),
    }
    zuko = _zuko(net, y0)
    if zuko is not None:
        solvers["zuko"] = zuko
    if diffrax is not None:
        solvers["diffrax dopri5, jit"] = diffrax.forward
    rows: dict[str, dict[str, Any]] = {}
    with torch.no_grad():
        tolerances = {name: loosest(solve, exact) for name, solve in solvers.items()}
        for name, solve in solvers.items():
            tolerance = tolerances[name]
            error, nfe = relative(solve(tolerance), exact), _calls(net, solve, tolerance)
            rows[name] = {"tolerance": tolerance, "error": error, "nfe": nfe}
        runs: dict[str, Callable[[], Any]] = {
            name: _bind(solve, tolerances[name]) for name, solve in solvers.items()
        }
        if diffrax is not None:
            tolerance = tolerances["diffrax dopri5, jit"]
            rows["diffrax dopri5, jit"]["nfe"] = diffrax.evaluations(tolerance)
            runs["diffrax dopri5, jit"] = diffrax.timed(tolerance)
        tolerances["sciflow dopri5, compiled"] = tolerances["sciflow dopri5"]
        compiled = ours(compile=True)
        error = relative(compiled(tolerances["sciflow dopri5"]), exact)
        rows["sciflow dopri5, compiled"] = rows["sciflow dopri5"] | {"error": error}
        runs["sciflow dopri5, compiled"] = _bind(compiled, tolerances["sciflow dopri5"])
        # Evaluations, the floor: a solver's overhead is over its own number of them.
        forward = race(
            runs | {"10 evaluations": lambda: [net(t[0], y0) for _ in range(10)]}, device, 15
        )
    first = f"dopri5 forward, {title}"
    tables = {first: {n: row | short(forward[n], device) for n, row in rows.items()}}
    key = "cpu_ms_min" if device == "cpu" else "wall_ms_min"
    for n, row in tables[first].items():
        row["overhead"] = forward[n][key] / (row["nfe"] * forward["10 evaluations"][key] / 10)

    def adjoint(tol: float) -> torch.Tensor:
        return odeint_adjoint(
            net, y0, t, method="dopri5", rtol=tol, atol=tol, adjoint_params=tuple(net.parameters())
        )[-1]

    solvers.pop("diffrax dopri5, jit", None)
    for grad in ("checkpoint", "adjoint"):
        solvers[f"sciflow {grad}"] = ours(grad=grad)
        tolerances[f"sciflow {grad}"] = tolerances["sciflow dopri5"]
    solvers["torchdiffeq adjoint"] = adjoint
    tolerances["torchdiffeq adjoint"] = tolerances["torchdiffeq dopri5"]
    backward = {n: _backward(net, s, tolerances[n]) for n, s in solvers.items()}
    if diffrax is not None:
        name = "diffrax dopri5, jit"
        backward[name] = diffrax.gradient(tolerances[name])
    both = race(backward, device, rounds=7)
    second = f"dopri5 forward + backward, {title}"
    return tables | {second: {n: short(both[n], device) for n in backward}}


def loosest(solve: Solve, exact: torch.Tensor) -> float:
    """The loosest tolerance whose error is at most the goal, as is that of the next tighter."""
    # One after the other: some solvers never end where the tolerance is below the rounding.
    errors: list[float] = []
    for i, tolerance in enumerate(LADDER):
        errors.append(relative(solve(tolerance), exact))
        if i and max(errors[-2:]) <= GOAL:
            return LADDER[i - 1]
    raise RuntimeError(f"no tolerance reaches {GOAL}: {errors}")


def relative(y: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative error in the Euclidean norm."""
    return float((y.detach().to(exact) - exact).norm() / exact.norm())


def _calls(net: Net, solve: Solve, tolerance: float) -> int:
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    handle = net.register_forward_pre_hook(count)
    solve(tolerance)
    handle.remove()
    return calls


def _bind(solve: Solve, tolerance: float) -> Callable[[], torch.Tensor]:
    return lambda: solve(tolerance)


def _backward(net: Net, solve: Solve, tolerance: float) -> Callable[[], None]:
    def both() -> None:
        net.zero_grad()
        solve(tolerance).square().sum().backward()

    return both


def _zuko(net: Net, y0: torch.Tensor) -> Solve | None:
    try:
        from zuko.utils import odeint as solve
    except ImportError:
        return None
    phi = tuple(net.parameters())
    return lambda tol: solve(net, y0, 0.0, 1.0, phi=phi, rtol=tol, atol=tol)


def _diffrax(net: Net, y0: torch.Tensor, device: str) -> Any:
    """Diffrax on the CPU, where it is installed."""
    if device != "cpu":
        return None
    try:
        import diffrax  # noqa: F401

        from benchmarks.diffrax_peer import Peer
    except ImportError:
        return None
    return Peer(net, y0)
