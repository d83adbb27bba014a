"""Forecasts of k and eps with bands, from an ensemble of neural ODEs."""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor
from sciflow.train import History, load_metadata, load_model, save_model
from sciflow.turbulence.knowledge import Seen, numbers, seen
from sciflow.turbulence.model import DecayODE, tau_grid

# Fall of ln k beyond which no forecast goes: five decades of energy and more.
TAU_MAX = 14.0
# tau at which Reynolds numbers are compared with those of the training; the usual C_eps2.
_MIDDLE, _USUAL = 0.5, 1.75
# Of a 90 % band of a normal error.
_NORMAL = 1.645


@dataclass(frozen=True)
class Forecast:
    """What an ensemble says of B decays at T times; arrays are (T, B), or (T,) for one decay.

    Attributes:
        t: times, as they were given.
        k, eps: forecasts, the geometric means of the members.
        k_low, k_high, eps_low, eps_high: bands that should hold the truth nine times of ten.
        C2: local C_eps2 = -d ln eps / d ln(1/k).
        encoder: the kind of knowledge that was used.
    """

    t: Tensor
    k: Tensor
    eps: Tensor
    k_low: Tensor
    k_high: Tensor
    eps_low: Tensor
    eps_high: Tensor
    C2: Tensor
    nu: Tensor
    encoder: str

    def of_one(self) -> Forecast:
        """The first of the decays, without the axis B."""
        series = ("k", "eps", "k_low", "k_high", "eps_low", "eps_high", "C2")
        return replace(self, nu=self.nu[0], **{name: getattr(self, name)[:, 0] for name in series})

    @property
    def Re_lambda(self) -> Tensor:
        """Taylor-scale Reynolds number sqrt(20 k^2 / (3 nu eps))."""
        return (20 / 3 * self.k**2 / (self.nu * self.eps)).sqrt()

    @property
    def exponent(self) -> Tensor:
        """Local exponent n of k ~ t^-n, 1 / (C2 - 1)."""
        return 1 / (self.C2 - 1)


@dataclass(frozen=True)
class Calibration:
    """How wide a band is: measured on decays that the networks have not seen.

    Attributes:
        scale: factors of the deviations of ln eps and ln k that make a 90 % band, by encoder.
        reach: range of ln Re_T at tau = 0.5 of the simulations in the training.
        outside: errors of ln eps and ln k beyond that range, where the forecast leans on the
            closure, by encoder.
    """

    scale: dict[str, tuple[float, float]]
    reach: tuple[float, float]
    outside: dict[str, tuple[float, float]]


class Forecaster(nn.Module):
    """An ensemble and its calibration: from k, eps, nu now to k, eps later.

    Args:
        model: the ensemble.
        calibration: of its bands.
    """

    def __init__(self, model: DecayODE, calibration: Calibration) -> None:
        super().__init__()
        self.model = model.double().eval()
        self.calibration = calibration
        self.history: History | None = None
        self.interrupted = False

    def forecast(
        self,
        k0: Any,
        eps0: Any,
        nu: Any,
        t: Any,
        *,
        skewness: Any = None,
        palinstrophy: Any = None,
        spectrum: tuple[Any, Any] | None = None,
        history: tuple[Any, Any, Any] | None = None,
        box: Any = None,
        k_max: Any = None,
        encoder: str | None = None,
    ) -> Forecast:
        """Kinetic energy and dissipation at later times.

        Numbers are for one decay; arrays (B,) for B of them, at the same times after their
        starts or, with ``t`` of shape (T, B), each at its own. Any consistent units.

        Args:
            k0: kinetic energy per mass at ``t[0]``.
            eps0: dissipation rate at ``t[0]``.
            nu: kinematic viscosity.
            t: increasing times (T,) or (T, B).
            skewness: minus the skewness of du/dx at the start, positive in turbulence; it needs
                ``palinstrophy``.
            palinstrophy: sum kappa^4 E at the start, half the mean square of the curl of the
                vorticity, 1/(length^2 time^2).
            spectrum: (kappa, E) with shapes (S,) and (S,) or (B, S); the integral of E is k0. A
                measured one may end before the dissipation does: without ``k_max`` it is
                continued so that 2 nu int kappa^2 E is eps0.
            history: (t, k, eps) of one decay up to the start, which is their last entry.
            box: side of the periodic box; without it the turbulence is unconfined.
            k_max: largest resolved wavenumber; without it all scales are resolved.
            encoder: the knowledge to use, of "bare", "skewness", "spectrum", "both" and
                "history"; None takes the most that was given.

        Raises:
            ValueError: a number that is not positive and finite, shapes that do not fit, an
                encoder whose knowledge was not given, a history that does not end at the start.
            DataError: a spectrum that does not belong to k0, or times beyond the reach.
        """
        k, eps, viscosity, single = numbers(k0=k0, eps0=eps0, nu=nu)
        B = len(k)
        times = torch.as_tensor(t, dtype=torch.float64)
        if times.ndim not in (1, 2) or (times.ndim == 2 and times.shape[1] != B):
            raise ValueError(f"t must be (T,) or (T, {B}); got {tuple(times.shape)}")
        if not torch.isfinite(times).all() or not (times.diff(dim=0) > 0).all():
            raise ValueError("t must be finite and increase")
        start = seen(
            k, eps, viscosity, skewness, palinstrophy, spectrum, history, box, k_max, encoder
        )
        found = self.solve(times, k, eps, viscosity, start)
        return found.of_one() if single else found

    def solve(
        self,
        t: Float[Tensor, "time *one_or_batch"],
        k: Float[Tensor, " batch"],
        eps: Float[Tensor, " batch"],
        nu: Float[Tensor, " batch"],
        start: Seen,
    ) -> Forecast:
        """`forecast` of positive numbers from what the networks see of the starts."""
        name, around, known = start
        elapsed = (t - t[:1]).expand(len(t), len(k)) if t.ndim == 2 else (t - t[0])[:, None]
        wanted = (elapsed * (eps / k)).expand(len(t), len(k))
        M = self.model.members
        far = float(wanted.detach().max())
        # A power law of exponent 1.5 falls this far; what decays faster is solved once more.
        end = min(TAU_MAX, 1.5 * math.log1p(far / 1.5) + 0.5)
        here = around.expand(M, -1, -1)
        z = self.model.encode(name, here, known.expand(M, -1, -1))
        while True:
            tau = tau_grid(end)
            y = self.model(tau, here, z)
            if bool((y[-1, ..., 1].amin(0) >= wanted[-1]).all()):
                break
            if end >= TAU_MAX:
                raise DataError(
                    f"t reaches beyond the fall of k by exp(-{TAU_MAX:g}), where no forecast goes"
                )
            end = min(TAU_MAX, end + 2.0)
        return self.read_off(t, wanted, tau, y, k, eps, nu, start)

    def read_off(
        self,
        t: Float[Tensor, "time *one_or_batch"],
        wanted: Float[Tensor, "time batch"],
        tau: Float[Tensor, " steps"],
        y: Float[Tensor, "steps members batch state"],
        k: Float[Tensor, " batch"],
        eps: Float[Tensor, " batch"],
        nu: Float[Tensor, " batch"],
        start: Seen,
    ) -> Forecast:
        """The forecast at times ``wanted``, in units of k_0/eps_0, from a solve along ``tau``."""
        name, around, _ = start
        here = around.expand(self.model.members, -1, -1)
        fallen, rise, C2 = _at_times(self.model, tau, y, here, wanted)
        mean_tau, g = fallen.mean(1), rise.mean(1)
        middle = bisect_left(tau.tolist(), _MIDDLE)
        reynolds = around[:, 0] - 2 * tau[middle] - y[middle, ..., 0].mean(0)
        sigma_e, sigma_k = self.deviation(
            name, reynolds, mean_tau, g, _spread(rise), _spread(fallen)
        )

        ln_k, ln_eps = k.log() - mean_tau, eps.log() + g
        return Forecast(
            t=t,
            k=ln_k.exp(),
            eps=ln_eps.exp(),
            k_low=(ln_k - sigma_k).exp(),
            k_high=(ln_k + sigma_k).exp(),
            eps_low=(ln_eps - sigma_e).exp(),
            eps_high=(ln_eps + sigma_e).exp(),
            C2=C2.mean(1),
            nu=nu,
            encoder=name,
        )

    def deviation(
        self,
        name: str,
        reynolds: Float[Tensor, " batch"],
        tau: Float[Tensor, "time batch"],
        g: Float[Tensor, "time batch"],
        spread_e: Float[Tensor, "time batch"],
        spread_k: Float[Tensor, "time batch"],
    ) -> tuple[Float[Tensor, "time batch"], Float[Tensor, "time batch"]]:
        """Half widths of the bands of ln eps and ln k.

        The spread of the members, and the error they share, which grows with the transient that
        has passed; and, where the Reynolds number in the middle of the first unit of tau is beyond
        those simulated, the error of the closure that the networks have learned there.
        """
        c = self.calibration
        low, high = c.reach
        beyond = ((reynolds - high).clamp_min(0) + (low - reynolds).clamp_min(0)) / math.log(2.0)
        grown = tau / (tau + 0.5)
        transient = (g + _USUAL * tau).abs()
        out = []
        for i, spread in enumerate((spread_e, spread_k)):
            within = c.scale[name][i] * own_deviation(spread, grown, transient)
            outside = _NORMAL * beyond.clamp_max(1.0) * c.outside[name][i] * grown
            out.append((within**2 + outside**2).sqrt())
        return out[0], out[1]

    def save(self, path: str | Path) -> Path:
        """Write the weights and the calibration to a .safetensors file."""
        c = self.calibration
        extra = {
            "scale": {name: list(x) for name, x in c.scale.items()},
            "reach": list(c.reach),
            "outside": {name: list(x) for name, x in c.outside.items()},
        }
        # They were trained in single precision, so nothing is lost.
        return save_model(path, copy.deepcopy(self).float(), self.model.config, extra=extra)


def load(path: str | Path) -> Forecaster:
    """A forecaster that `Forecaster.save` wrote.

    Raises:
        DataError: the file is not of a forecaster.
    """
    extra: Mapping[str, Any] = load_metadata(path).extra
    if "reach" not in extra:
        raise DataError(f"{path} is not the file of a forecaster")
    calibration = Calibration(
        scale={name: tuple(x) for name, x in extra["scale"].items()},
        reach=tuple(extra["reach"]),
        outside={name: tuple(x) for name, x in extra["outside"].items()},
    )

    def build(config: dict[str, Any]) -> Forecaster:
        return Forecaster(DecayODE(**config), calibration)

    return cast(Forecaster, load_model(path, build))


def own_deviation(spread: Tensor, grown: Tensor, transient: Tensor) -> Tensor:
    """Deviation of a logarithm before its scale: spread of the members, floor, transient."""
    return (spread**2 + (0.01 * grown + 0.02 * transient) ** 2).sqrt()


def _spread(x: Float[Tensor, "time members batch"]) -> Float[Tensor, "time batch"]:
    """Standard deviation of the members."""
    return x.std(1) if x.shape[1] > 1 else torch.zeros_like(x[:, 0])


def _at_times(
    model: DecayODE, tau: Tensor, y: Tensor, around: Tensor, wanted: Float[Tensor, "time batch"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Tau, ln(eps/eps_0) and C2 at times theta, (T, M, B): Hermite cubics in theta.

    Both are known with their derivatives at every step: d tau / d theta = exp(tau + ln eps/eps_0)
    and d ln eps / d tau = -C2. Over ln(theta + c) a power law is nearly straight.
    """
    steps, members, batch, width = y.shape
    # All steps at once, as one long batch.
    C2 = model.slope(
        tau.repeat_interleave(batch),
        y.transpose(0, 1).reshape(members, steps * batch, width),
        around.repeat(1, steps, 1),
    )[0]
    C2 = C2.reshape(members, steps, batch).transpose(0, 1)
    g, theta = y[..., 0], y[..., 1]
    soft = 1.0
    x = (theta + soft).log()
    rate = torch.exp(tau[:, None, None] + g) * (theta + soft)  # d tau / dx
    at = (wanted.clamp_min(0.0) + soft).log()[:, None, :].expand(-1, model.members, -1)
    # (..., steps) last, as searchsorted wants it
    nodes = x.permute(1, 2, 0).contiguous()
    query = at.permute(1, 2, 0).contiguous()
    i = torch.searchsorted(nodes.detach(), query.detach(), right=True).clamp(1, len(tau) - 1)

    def pick(values: Tensor, j: Tensor) -> Tensor:
        return values.permute(1, 2, 0).gather(2, j)

    x0, x1 = pick(x, i - 1), pick(x, i)
    h = x1 - x0
    s = ((query - x0) / h).clamp(0.0, 1.0)
    levels = tau[:, None, None].expand_as(g)

    def hermite(value: Tensor, slope: Tensor) -> Tensor:
        a, b = pick(value, i - 1), pick(value, i)
        da, db = pick(slope, i - 1) * h, pick(slope, i) * h
        out = a + s * (da + s * (3 * (b - a) - 2 * da - db + s * (2 * (a - b) + da + db)))
        return out.permute(2, 0, 1)

    low, high = pick(C2, i - 1), pick(C2, i)
    between = (low + s * (high - low)).permute(2, 0, 1)
    return hermite(levels, rate), hermite(g, -C2 * rate), between
