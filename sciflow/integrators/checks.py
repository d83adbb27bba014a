"""What ``integrate`` refuses, and how it says so: the argument, what came and what is expected."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch

from sciflow.integrators.delegate import is_delegated
from sciflow.integrators.events import Event
from sciflow.integrators.fields import SDE, Hamiltonian
from sciflow.integrators.hamiltonian import HAMILTONIAN_METHODS
from sciflow.integrators.leaves import all_finite
from sciflow.integrators.rungekutta import Time
from sciflow.integrators.sde import SDE_METHODS
from sciflow.integrators.splitting import SPLITTINGS
from sciflow.integrators.tableaus import TABLEAUS, Rosenbrock
from sciflow.shapes import Tensor


def check_times(t: Any, batch: str, leaves: list[Tensor]) -> tuple[list[Time], list[float]]:
    """The output times: as the solver wants them (tensors where gradients are), and as floats."""
    if not isinstance(t, Tensor) or not t.is_floating_point():
        got = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"t must be a floating-point tensor of times; got {got}")
    rank = "(T,), or (T, batch)" if batch == "each" else "(T,)"
    if t.ndim != 1 and not (batch == "each" and t.ndim == 2):
        raise ValueError(f"t must have shape {rank}; got {tuple(t.shape)}")
    if len(t) < 2:
        raise ValueError(f"t must hold at least the initial and one more time; got {len(t)}")
    if t.ndim == 2 and leaves[0].shape[:1] != t.shape[1:]:
        raise ValueError(
            f"t of shape (T, batch) must have the batch of y0, {tuple(leaves[0].shape)}; "
            f"got {tuple(t.shape)}"
        )
    if torch.compiler.is_exporting():
        return _constant_times(t)
    floats: list[float] = (t if t.ndim == 1 else t[:, 0] if t.numel() else t.sum(1)).tolist()
    if not _in_order(t.detach(), floats):
        if not bool(t.isfinite().all()):
            raise ValueError(f"t must be finite; got {t[~t.isfinite()][0]:g}")
        raise ValueError(f"t must be strictly increasing or strictly decreasing; got {t}")
    times: list[Time] = list(t.double().unbind()) if t.requires_grad else list(floats)
    return times, floats


def _in_order(t: Tensor, floats: list[float]) -> bool:
    """Whether the times of every sample are finite and strictly monotonic."""
    if t.ndim == 2:
        gaps = t.diff(dim=0)
        return bool((t.isfinite().all(0) & ((gaps > 0).all(0) | (gaps < 0).all(0))).all())
    pairs = list(pairwise(floats))  # on the host: a tensor's operations would cost more
    monotonic = all(a < b for a, b in pairs) or all(a > b for a, b in pairs)
    return monotonic and math.isfinite(floats[0]) and math.isfinite(floats[-1])


def _constant_times(t: Tensor) -> tuple[list[Time], list[float]]:
    """Times that become constants of an exported graph."""
    floats: list[Any] = t.tolist()
    if not all(type(x) is float for x in floats):  # symbols, where t is part of the graph
        raise ValueError(
            "under torch.export t must be a constant: a tensor made before the export, and no "
            f"buffer of the module; got {t}"
        )
    return list(floats), floats


def check_arguments(
    method: Any,
    rtol: Any,
    atol: Any,
    dt: Any,
    grad: Any,
    batch: Any,
    max_steps: Any,
    generator: Any,
    seed: Any,
) -> None:
    """Each argument by itself."""
    known = [*TABLEAUS, *SDE_METHODS, *HAMILTONIAN_METHODS]
    if not isinstance(method, str) or not (method in known or is_delegated(method)):
        raise ValueError(
            f"method must be one of {known} or 'torchdiffeq:NAME' or 'scipy:NAME'; got {method!r}"
        )
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (_is_finite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number, not negative; got {value!r}")
    if rtol == 0 and atol == 0:
        raise ValueError("rtol and atol must not both be zero; got 0 and 0")
    if dt is not None and not (_is_finite(dt) and dt > 0):
        raise ValueError(
            f"dt must be a finite positive number (the direction is that of t); got {dt!r}"
        )
    if grad not in ("direct", "checkpoint", "adjoint"):
        raise ValueError(f"grad must be 'direct', 'checkpoint' or 'adjoint'; got {grad!r}")
    if batch not in ("joint", "each"):
        raise ValueError(f"batch must be 'joint' or 'each'; got {batch!r}")
    if not (_is_finite(max_steps) and max_steps >= 1):
        raise ValueError(f"max_steps must be at least 1; got {max_steps!r}")
    if generator is not None and seed is not None:
        raise ValueError("give seed or generator, not both")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator; got {type(generator).__name__}")
    if seed is not None and not isinstance(seed, int):
        raise TypeError(f"seed must be an integer; got {type(seed).__name__}")


def check_together(
    field: Any, t: Tensor, method: str, dt: float | None, grad: str, batch: str, **asked: bool
) -> None:
    """Arguments that exclude each other; ``asked`` holds ``compile`` and ``dense``."""
    if not callable(field) and not isinstance(field, SDE):
        raise TypeError(f"field must be callable, f(t, y), or an SDE; got {type(field).__name__}")
    if isinstance(field, SDE):
        if method not in SDE_METHODS:
            raise ValueError(
                f"method for an SDE must be one of {sorted(SDE_METHODS)}; got {method!r}"
            )
        if dt is None:
            raise ValueError("an SDE needs dt, the step in units of t; got None")
        if t.requires_grad:
            raise ValueError("t must not require a gradient for an SDE: its path has none")
    elif method in SDE_METHODS:
        name = getattr(field, "__name__", type(field).__name__)
        raise ValueError(f"method {method!r} is for an SDE; got the field {name}")
    if isinstance(field, Hamiltonian):
        _check_hamiltonian(field, t, method)
    elif method in HAMILTONIAN_METHODS:
        raise ValueError(
            f"method {method!r} is for a Hamiltonian; got the field {type(field).__name__}"
        )
    explicit = [name for name in TABLEAUS if not isinstance(TABLEAUS[name], Rosenbrock)]
    undone = (*explicit, *SPLITTINGS, "reversible_heun")
    if grad == "adjoint" and method not in undone:
        raise ValueError(f'grad="adjoint" needs a method of {[*undone]}; got {method!r}')
    if batch == "each":
        if method not in TABLEAUS or not TABLEAUS[method].adaptive or dt is not None:
            raise ValueError(
                f'batch="each" needs an adaptive method without dt; got {method!r} with dt={dt}'
            )
        if grad != "direct":
            raise ValueError(f'batch="each" needs grad="direct"; got {grad!r}')
    if is_delegated(method) and grad != "direct":
        raise ValueError(f'{method.partition(":")[0]} needs grad="direct"; got {grad!r}')
    for name, wanted in asked.items():
        able = method in ((*explicit, *SPLITTINGS) if name == "compile" else TABLEAUS)
        if wanted and (batch == "each" or not able):
            raise ValueError(
                f'{name}=True needs an ordinary differential equation with batch="joint" and a '
                f"method of sciflow; got batch={batch!r}, method={method!r}"
            )
    if asked.get("compile") and method in SPLITTINGS and grad != "direct":
        raise ValueError(f'compile=True with {method!r} needs grad="direct"; got {grad!r}')
    if asked.get("dense") and grad != "direct":
        raise ValueError(f'dense=True needs grad="direct"; got {grad!r}')


def check_watching(
    event: Any,
    on_step: Any,
    method: str,
    dt: float | None,
    grad: str,
    batch: str,
    dense: bool,
    compile: bool,
) -> None:
    """What looks at the steps, or changes their ends, against the rest."""
    for name, value in (("event", event), ("on_step", on_step)):
        if value is None:
            continue
        if not isinstance(value, Event) and not callable(value):
            raise TypeError(f"{name} must be callable; got {type(value).__name__}")
        if grad != "direct" or dense or is_delegated(method):
            raise ValueError(
                f'{name} needs grad="direct", no dense output and a method of sciflow; '
                f"got {grad!r}, dense={dense}, {method!r}"
            )
    if on_step is not None and batch == "each":
        raise ValueError(
            'on_step needs batch="joint", where all samples are at one time; got batch="each"'
        )
    if on_step is not None and compile and method in SPLITTINGS:
        raise ValueError("on_step needs single steps, compile=True makes chunks: give one of them")
    if event is not None and (
        method not in TABLEAUS or not TABLEAUS[method].adaptive or dt is not None
    ):
        raise ValueError(f"event needs an adaptive method without dt; got {method!r}, dt={dt}")
    if on_step is not None and method == "hmc":
        raise ValueError("on_step cannot change the trajectories of 'hmc'")


def _check_hamiltonian(field: Hamiltonian, t: Tensor, method: str) -> None:
    if field.friction and method != "baoab":
        raise ValueError(f"friction needs method 'baoab'; got {method!r} with {field.friction:g}")
    if method == "baoab" and bool(t[-1] < t[0]):
        raise ValueError("t must increase with 'baoab': a heat bath cannot be undone")
    if method == "hmc" and not field.kT:
        raise ValueError("'hmc' needs a temperature: Hamiltonian(..., kT=...); got kT=0")


def check_state(leaves: list[Tensor]) -> None:
    """The initial state."""
    if not leaves:
        raise ValueError("y0 must hold at least one tensor; got none")
    for i, leaf in enumerate(leaves):
        if not (leaf.is_floating_point() or leaf.is_complex()):
            raise TypeError(f"y0 must be floating-point or complex; leaf {i} is {leaf.dtype}")
        if torch.compiler.is_exporting():  # a graph has no values to look at
            continue
        if not all_finite(leaf):
            bad = (~leaf.detach().isfinite()).nonzero()[0].tolist()
            raise ValueError(f"y0 must be finite; leaf {i} is not, first at index {bad}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False
