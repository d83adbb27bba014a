"""One decay: kinetic energy, dissipation and what else was measured, checked for agreement."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator, make_smoothing_spline

from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor

logger = logging.getLogger(__name__)

Source = Literal["simulation", "closure", "measurement"]
#: Given as a tensor, an array or a list, and a tensor from then on.
Series = Any

# Relative difference of -dk/dt and eps that is worth a word, and that which is an error.
_WARN, _REFUSE = 0.02, 0.05
# Least fall of ln k over which the two are compared: rounding in a file drowns smaller ones.
_WINDOW = 0.05


@dataclass(frozen=True, kw_only=True)
class DecayRun:
    """The statistics of one decay of isotropic turbulence; all arrays are float64 on the CPU.

    Any consistent units: k in length^2/time^2, eps in length^2/time^3, nu in length^2/time.

    Attributes:
        t: times, increasing, shape (T,).
        k: kinetic energy per mass, falling, shape (T,).
        eps: dissipation rate of k, shape (T,).
        nu: kinematic viscosity.
        skewness: minus the skewness of du/dx (positive in developed turbulence, about .5), (T,).
        palinstrophy: sum kappa^4 E, half the mean square of the curl of the vorticity, (T,).
        integral_scale: 3 pi / (4 k) sum E / kappa, shape (T,).
        kappa: wavenumbers of the spectrum, shape (S,).
        spectrum: E(kappa) per wavenumber, whose integral is k, shape (T, S).
        box: side of the periodic box, if there is one.
        k_max: largest wavenumber that was resolved, if that is limited.
        name: for plots and messages.
        source: "simulation", "closure" or "measurement".
        balance: largest relative difference of -dk/dt and eps over windows of ln k; measured
            here unless a finer record has told it already.

    Raises:
        DataError: too few, unsorted or repeated times; values that are not finite; k or eps not
            positive; k that rises; shapes that do not fit; -dk/dt and eps that differ by more
            than 5 % unless ``check="ignore"`` (then, as from 2 %, a warning is logged).
    """

    t: Series
    k: Series
    eps: Series
    nu: float
    skewness: Series | None = None
    palinstrophy: Series | None = None
    integral_scale: Series | None = None
    kappa: Series | None = None
    spectrum: Series | None = None
    box: float | None = None
    k_max: float | None = None
    name: str = ""
    source: Source = "measurement"
    balance: float | None = None
    check: Literal["error", "ignore"] = "error"

    def __post_init__(self) -> None:
        for name in (*_SERIES, "kappa"):
            value = getattr(self, name)
            if value is not None:
                x = torch.as_tensor(np.asarray(value, dtype=np.float64)).clone()
                object.__setattr__(self, name, x)
        self._check_values()
        if self.balance is not None:
            return
        balance = _imbalance(self.t, self.k, self.eps)
        object.__setattr__(self, "balance", balance)
        if balance > _WARN:
            text = (
                f"{self._label}: -dk/dt and eps differ by {balance:.1%}; are they in the same "
                "units, and is the record long and fine enough?"
            )
            if balance > _REFUSE and self.check == "error":
                raise DataError(f'{text} Above 5 % this is refused unless check="ignore"')
            logger.warning(text)

    def _check_values(self) -> None:
        size = self.t.shape
        if self.t.ndim != 1 or len(self.t) < 2:
            raise DataError(f"{self._label}: t must hold two times or more; got {tuple(size)}")
        for name in _SERIES:
            value = getattr(self, name)
            if value is None:
                continue
            if value.shape[:1] != size or value.ndim != (2 if name == "spectrum" else 1):
                raise DataError(
                    f"{self._label}: {name} has shape {tuple(value.shape)}; t has {tuple(size)}"
                )
            bad = ~torch.isfinite(value.reshape(len(value), -1)).all(1)
            if bad.any():
                raise DataError(f"{self._label}: {name}[{int(bad.nonzero()[0])}] is not finite")
        later = self.t.diff() > 0
        if not later.all():
            i = int((~later).nonzero()[0])
            raise DataError(
                f"{self._label}: t must increase; t[{i}] = {self.t[i]:g}, t[{i + 1}] = "
                f"{self.t[i + 1]:g}"
            )
        for name in ("k", "eps"):
            value = getattr(self, name)
            if not (value > 0).all():
                i = int((value <= 0).nonzero()[0])
                raise DataError(
                    f"{self._label}: {name} must be positive; {name}[{i}] = {value[i]:g}"
                )
        falls = self.k.diff() < 0
        if not falls.all():
            i = int((~falls).nonzero()[0])
            raise DataError(
                f"{self._label}: k must fall, for nothing feeds a decay; k[{i}] = "
                f"{self.k[i]:.6g}, k[{i + 1}] = {self.k[i + 1]:.6g}"
            )
        for name in ("nu", "box", "k_max"):
            value = getattr(self, name)
            if value is None and name != "nu":
                continue
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"{self._label}: {name} must be positive; got {value}")
        if (self.kappa is None) != (self.spectrum is None):
            raise DataError(f"{self._label}: spectrum and kappa belong together")
        if self.kappa is not None and self.spectrum is not None:
            if self.spectrum.shape[1:] != self.kappa.shape:
                raise DataError(
                    f"{self._label}: spectrum has {self.spectrum.shape[1]} columns, kappa has "
                    f"{len(self.kappa)} wavenumbers"
                )
            if not ((self.kappa > 0).all() and (self.kappa.diff() > 0).all()):
                raise DataError(f"{self._label}: kappa must be positive and increase")
            if (self.spectrum < 0).any():
                raise DataError(f"{self._label}: spectrum must not be negative")

    @property
    def _label(self) -> str:
        return f"decay {self.name!r}" if self.name else "decay"

    @property
    def tau(self) -> Float[Tensor, " time"]:
        """The time in which the energy falls evenly, ln(k(t_0) / k)."""
        return (self.k[0] / self.k).log()

    @property
    def Re_T(self) -> Float[Tensor, " time"]:
        """Turbulence Reynolds number k^2 / (nu eps)."""
        return self.k**2 / (self.nu * self.eps)

    @property
    def Re_lambda(self) -> Float[Tensor, " time"]:
        """Taylor-scale Reynolds number sqrt(20/3 Re_T)."""
        return (20 / 3 * self.Re_T).sqrt()

    @property
    def eta(self) -> Float[Tensor, " time"]:
        """Kolmogorov length (nu^3 / eps)^(1/4)."""
        return (self.nu**3 / self.eps) ** 0.25

    @property
    def C2(self) -> Float[Tensor, " time"]:
        """Local -d ln eps / d ln(1/k), the C_eps2 of a k-epsilon model, from a cubic spline."""
        slope = CubicSpline(self.tau.numpy(), self.eps.log().numpy()).derivative()
        return -torch.from_numpy(slope(self.tau.numpy()))

    def resample(self, tau: Any = None, t: Any = None) -> DecayRun:
        """The same decay at other times, by cubic interpolation of logarithms in ``tau``.

        Args:
            tau: values of ln(k(t_0)/k), increasing, within the record; or
            t: times within the record.

        Raises:
            ValueError: neither or both are given, or a value outside the record.
        """
        if (tau is None) == (t is None):
            raise ValueError("give either tau or t")
        here = self.tau.numpy()
        if tau is None:
            at = np.asarray(t, dtype=np.float64)
            if at.min() < float(self.t[0]) or at.max() > float(self.t[-1]):
                raise ValueError(f"t must lie within {self.t[0]:g} ... {self.t[-1]:g}")
            wanted = np.clip(PchipInterpolator(self.t.numpy(), here)(at), here[0], here[-1])
        else:
            wanted = np.asarray(tau, dtype=np.float64)
            if wanted.min() < here[0] or wanted.max() > here[-1] * (1 + 1e-12):
                raise ValueError(f"tau must lie within 0 ... {here[-1]:.6g}")

        def moved(value: Tensor | None, log: bool) -> Tensor | None:
            if value is None:
                return None
            y = value.clamp_min(1e-300).log() if log else value
            x = torch.from_numpy(PchipInterpolator(here, y.numpy())(wanted))
            return x.exp() if log else x

        return replace(
            self,
            t=moved(self.t, False),
            k=self.k[0] * torch.exp(-torch.from_numpy(wanted)),
            eps=moved(self.eps, True),
            skewness=moved(self.skewness, False),
            palinstrophy=moved(self.palinstrophy, True),
            integral_scale=moved(self.integral_scale, True),
            spectrum=moved(self.spectrum, True),
        )

    def since(self, i: int) -> DecayRun:
        """The decay from its time number ``i`` on."""
        cut: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[i:]
            for name in _SERIES
        }
        return replace(self, **cut)


_SERIES = ("t", "k", "eps", "skewness", "palinstrophy", "integral_scale", "spectrum")


def from_series(
    t: Any, k: Any, nu: float, smoothing: float | None = None, **more: Any
) -> DecayRun:
    """A decay from measured energies alone; eps = -dk/dt by a smoothing spline.

    ln k is smoothed over ln(t - t_0 + k_0 / |dk/dt|_0), in which a power-law decay is straight.
    A derivative of data is worth less than a measured dissipation: a warning says so.

    Args:
        t: times (T,), T at least 5.
        k: kinetic energies (T,).
        nu: kinematic viscosity.
        smoothing: weight of the curvature; None is chosen by generalised cross-validation.
        more: further fields of `DecayRun`.

    Raises:
        DataError: fewer than five times, or what `DecayRun` refuses.
    """
    x = np.asarray(t, dtype=np.float64)
    y = np.asarray(k, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 5:
        raise DataError(f"t and k must be five values or more each; got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (y > 0).all()):
        raise DataError("t and k must be finite, and k positive")
    if not (np.diff(x) > 0).all():
        raise DataError("t must increase")
    rate = (y[0] - y[1]) / (x[1] - x[0])
    if rate <= 0:
        raise DataError("k must fall from the first time on")
    origin = y[0] / rate
    s = np.log1p((x - x[0]) / origin)
    spline = make_smoothing_spline(s, np.log(y), lam=smoothing)
    smooth = np.exp(spline(s))
    eps = -smooth * spline.derivative()(s) / (x - x[0] + origin)
    logger.warning("eps is the derivative of k by a smoothing spline; a measured one is better")
    return DecayRun(t=x, k=smooth, eps=eps, nu=nu, **more)


def _imbalance(t: Tensor, k: Tensor, eps: Tensor) -> float:
    """Largest relative difference of the fall of k and the integral of eps, over windows."""
    tau = (k[0] / k).log().numpy()
    # ln eps over tau is smooth from the first to the last decade: dt = k / eps d tau.
    times, energies = t.numpy(), k.numpy()
    spline = CubicSpline(times, eps.log().numpy()) if len(t) > 3 else None
    nodes, weights = np.polynomial.legendre.leggauss(5)
    width = np.diff(times)
    at = times[:-1, None] + width[:, None] * (nodes + 1) / 2
    if spline is None:
        rates = np.exp(np.interp(at, times, eps.log().numpy()))
    else:
        rates = np.exp(spline(at))
    lost = np.concatenate([[0], np.cumsum((rates * weights).sum(1) * width / 2)])
    worst, i = 0.0, 0
    for j in range(1, len(tau)):
        if tau[j] - tau[i] < _WINDOW and j < len(tau) - 1:
            continue
        fall = energies[i] - energies[j]
        if tau[j] - tau[i] >= _WINDOW / 2 or i == 0:
            worst = max(worst, abs(fall / (lost[j] - lost[i]) - 1))
        i = j
    return float(worst)
