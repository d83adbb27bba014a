"""Direct numerical simulation of decaying turbulence, as a table of statistics."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from scipy.interpolate import CubicHermiteSpline, CubicSpline
from tqdm.auto import tqdm

from sciflow.shapes import Tensor
from sciflow.train import Engine
from sciflow.turbulence.fourier import Fourier, SlabFourier
from sciflow.turbulence.navier_stokes import STRETCHING, Moments, NavierStokes, Truncation
from sciflow.turbulence.runs import DecayRun
from sciflow.turbulence.spectra import Spectrum
from sciflow.turbulence.starts import random_field, taylor_green

logger = logging.getLogger(__name__)

# The resolution and the balance of energy below and above which a run is not to be trusted.
RESOLVED, BALANCED = 1.0, 2e-3


def simulate(
    n: int = 64,
    nu: float = 0.02,
    spectrum: Spectrum | Literal["taylor-green"] | None = None,
    seeds: int | Iterable[int] = 1,
    *,
    tau_max: float | None = 3.5,
    t_max: float | None = None,
    tau_step: float = 0.05,
    box: float = 2 * math.pi,
    cfl: float = 0.9,
    dt_max: float | None = None,
    truncation: Truncation = "sphere",
    device: str = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    batch: int = 4,
    name: str = "",
    progress: bool = True,
) -> list[DecayRun]:
    """Simulate decays of isotropic turbulence and keep their statistics.

    Under torchrun one field is cut into slabs, one for each process.

    Args:
        n: points along each side of the box; n // 3 wavenumbers are resolved.
        nu: kinematic viscosity, length^2 / time.
        spectrum: E(kappa) of Gaussian starts, for instance a `PeakedSpectrum`; None is one that
            peaks at the fifth wavenumber of the box. Or "taylor-green".
        seeds: number of random starts, or their seeds.
        tau_max: stop when the energy has fallen by the factor exp(-tau_max); None for no such end.
        t_max: stop at this time; None for no such end.
        tau_step: distance of the records in tau = ln(k_0 / k); with ``t_max`` alone every time
            step is a record.
        box: side of the periodic cube.
        cfl: largest (|u_x| + |u_y| + |u_z|) dt / dx; stable below 1.3.
        dt_max: largest time step; None leaves it to ``cfl`` and to 0.1 k / eps.
        truncation: modes kept, "sphere" or "cube" (`NavierStokes`).
        device: torch device: "auto", "cpu", "cuda".
        dtype: of the fields; statistics are always summed in float64.
        batch: seeds that run together.
        name: first part of the names of the runs.
        progress: show a progress bar.

    Returns:
        One run for each seed, with skewness (from the rate of vortex stretching), palinstrophy,
        integral scale and spectrum. A warning is logged where k_max eta falls below 1 or the
        energy balance is off by more than 0.2 %.

    Raises:
        ValueError: an argument out of range.
        FloatingPointError: the fields are not finite any more: ``dt_max`` or ``cfl`` too large.

    Example:
        >>> run, = simulate(32, nu=0.05, tau_max=0.5, progress=False)
        >>> bool(run.k[-1] < 0.7 * run.k[0])
        True
    """
    if tau_max is None and t_max is None:
        raise ValueError("give tau_max or t_max: one of them ends the simulation")
    for label, value in (
        ("nu", nu), ("box", box), ("cfl", cfl), ("tau_step", tau_step),
        ("tau_max", tau_max), ("t_max", t_max), ("dt_max", dt_max),
    ):  # fmt: skip
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{label} must be positive; got {value}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1; got {batch}")
    engine = Engine.start(device)
    precision = torch.float32 if dtype == "float32" else torch.float64
    slabs = engine.world > 1 and dist.is_initialized()
    fourier = (SlabFourier if slabs else Fourier)(n, engine.device, precision)
    flow = NavierStokes(fourier, nu, box, truncation)
    numbers = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    if not numbers:
        raise ValueError("seeds must name at least one start")
    if spectrum == "taylor-green":
        numbers = numbers[:1]
    if spectrum is None:
        from sciflow.turbulence.spectra import PeakedSpectrum

        spectrum = PeakedSpectrum(peak=5 * 2 * math.pi / box)
    runs: list[DecayRun] = []
    with (
        tqdm(
            total=len(numbers),
            disable=not (progress and engine.is_main),
            desc="decays",
            unit="run",
        ) as bar,
        torch.no_grad(),
    ):
        for i in range(0, len(numbers), batch):
            part = numbers[i : i + batch]
            if spectrum == "taylor-green":
                u = taylor_green(flow)
            else:
                start = cast(Spectrum, spectrum)
                u = torch.cat([random_field(flow, start, seed) for seed in part])
            record = _march(flow, u, cfl, dt_max, tau_max, t_max, bar)
            for j, seed in enumerate(part):
                label = f"{name or 'decay'}-{n}-{seed}"
                grid = None if tau_max is None else tau_step
                runs.append(_as_run(flow, record, j, grid, tau_max, t_max, label))
            bar.update(len(part))
    return runs


class _Record:
    """Times and statistics of all steps of a batch."""

    def __init__(self) -> None:
        self.t: list[float] = []
        self.moments: list[Moments] = []

    def stacked(self, j: int) -> tuple[np.ndarray, Moments]:
        """Times, and the statistics of field ``j`` with the time axis first."""
        parts = [torch.stack([x[j] for x in column]) for column in zip(*self.moments, strict=True)]
        return np.array(self.t), Moments(*parts)


def _march(
    flow: NavierStokes,
    u: Tensor,
    cfl: float,
    dt_max: float | None,
    tau_max: float | None,
    t_max: float | None,
    bar: Any,
) -> _Record:
    record, t = _Record(), 0.0
    spacing = flow.box / flow.fourier.n
    # Where no speed is, the smallest scale diffuses in this time.
    while True:
        first, speed = flow.advection(u)
        moments = flow.moments(u, first)
        if not torch.isfinite(moments.k).all():
            raise FloatingPointError(
                f"the velocity is not finite at t = {t:.6g}; lower cfl = {cfl} or dt_max"
            )
        record.t.append(t)
        record.moments.append(moments)
        fallen = (record.moments[0].k / moments.k).log()
        bar.set_postfix(t=f"{t:.3g}", tau=f"{float(fallen.min()):.2f}", refresh=False)
        if tau_max is not None and float(fallen.min()) >= tau_max:
            return record
        if t_max is not None and t >= t_max * (1 - 1e-12):
            return record
        dt = min(
            cfl * spacing / max(float(speed.max()), 1e-300),
            0.1 * float((moments.k / moments.eps).min()),
            math.inf if dt_max is None else dt_max,
        )
        if t_max is not None:
            dt = min(dt, t_max - t)
        u = flow.step(u, first, dt)
        t += dt


def _as_run(
    flow: NavierStokes,
    record: _Record,
    j: int,
    tau_step: float | None,
    tau_max: float | None,
    t_max: float | None,
    name: str,
) -> DecayRun:
    t, m = record.stacked(j)
    skewness = m.production / (STRETCHING * m.eps**1.5 * flow.nu**-0.5)
    energy = CubicHermiteSpline(t, m.k.numpy(), -m.eps.numpy())
    balance = _balance(t, m)
    eta = (flow.nu**3 / m.eps) ** 0.25
    resolution = float(flow.k_max * eta.min())
    if resolution < RESOLVED:
        logger.warning("%s: k_max eta falls to %.2f; small scales are missing", name, resolution)
    if balance > BALANCED:
        logger.warning("%s: energy balance is off by %.2g of eps; shorten dt_max", name, balance)
    series: dict[str, Any] = {
        "eps": m.eps, "skewness": skewness, "palinstrophy": m.palinstrophy,
        "integral_scale": m.integral_scale, "spectrum": m.spectrum,
    }  # fmt: skip
    if tau_step is not None and tau_max is not None:
        # Even steps of tau = ln(k_0 / k), each at the time at which the energy is there.
        end = min(tau_max, float(math.log(m.k[0] / m.k[-1])))
        grid = tau_step * np.arange(int(end / tau_step + 1e-9) + 1)
        fallen = np.log(float(m.k[0]) / m.k.numpy())
        at = CubicHermiteSpline(fallen, t, (m.k / m.eps).numpy())(grid)
        moved: dict[str, Any] = {
            key: torch.from_numpy(CubicSpline(t, value.numpy())(at))
            for key, value in series.items()
        }
        moved["spectrum"].clamp_(min=0.0)
        k = float(m.k[0]) * np.exp(-grid)
    else:
        at, moved, k = t, series, energy(t)
    unit = 2 * math.pi / flow.box
    moved["spectrum"] = moved["spectrum"] / unit
    return DecayRun(
        t=torch.from_numpy(at),
        k=torch.as_tensor(k),
        nu=flow.nu,
        kappa=flow.kappa,
        box=flow.box,
        k_max=flow.k_max,
        name=name,
        source="simulation",
        balance=balance,
        **moved,
    )


def _balance(t: np.ndarray, m: Moments) -> float:
    """Largest |dk/dt + eps| / max(eps): k of every step against the integral of eps."""
    if len(t) < 4:
        return 0.0
    lost = CubicSpline(t, m.eps.numpy()).antiderivative()(t)
    gap = np.diff(m.k.numpy() + lost) / np.diff(t)
    return float(np.abs(gap).max() / float(m.eps.max()))
