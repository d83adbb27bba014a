"""Forecasts of spectra: shells that exchange energy at learned rates, and lose none by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sciflow.errors import DataError
from sciflow.nn import MLP
from sciflow.shapes import Float, Tensor
from sciflow.train import load_metadata, load_model, save_model
from sciflow.turbulence.shell_grid import RATIO, ShellGrid
from sciflow.turbulence.shell_starts import grid_of, resolved_grid, shell_energies, tilted

# Steps of one forecast; a spectrum that needs more is not of decaying turbulence.
_STEPS = 20_000
_FEATURES = 5
# Bound of the logarithm of what the network makes of Leith's estimate.
_BOUND = 6.0


@dataclass(frozen=True)
class ShellForecast:
    """A decay as the shells have it.

    Attributes:
        t: times, as they were given, shape (T,).
        k: kinetic energy, the sum over the shells, shape (T,).
        eps: dissipation rate within the shells, shape (T,).
        kappa: wavenumbers of the shells, shape (S,).
        spectrum: E(kappa), shape (T, S).
        nu: kinematic viscosity.
    """

    t: Tensor
    k: Tensor
    eps: Tensor
    kappa: Tensor
    spectrum: Tensor
    nu: Tensor


class ShellModel(nn.Module):
    """Energies u_i of shells, four per octave, that exchange energy with learned rates.

    du_i/dt = sum_j c_ij (f_j - f_i) - 2 nu kappa_i^2 u_i with f = E / kappa^2. The rates are
    symmetric and positive, whatever the weights, so the exchange conserves the energy to rounding
    and moves it from large f to small. Up to ``reach`` shells apart

        c_ij = C r_d kappa^(13/2) f^(1/2) / (kappa_j - kappa_i) exp(a_d(x_i) + b_d(x_j))

    with j = i + d: the estimate of Leith's diffusion at the mean of the two shells, times what a
    network makes of the state of both: slope of E, viscous rate and local strain in units
    of the strain of
    all larger scales, kappa in units of the integral wavenumber, distance to the cut. They have no
    units, so scaling lengths and velocities changes nothing. ``reach=1, width=0`` is Leith's
    closure with its one constant C.

    A spectrum does not tell how far the triple correlations have developed. From a Gaussian start
    all rates are multiplied by 1 - exp(-m t), m = lambda (s_i + s_j) + nu (kappa_i^2 + kappa_j^2)
    with the strain rates s and a learned lambda, as closures do; otherwise they are taken as
    developed. A start in between belongs to neither.

    Args:
        reach: largest distance in shells of those that exchange energy.
        width: width of the hidden layers of the network; 0 has none.
        depth: number of hidden layers.
        generator: source of the initial weights.

    Raises:
        ValueError: a size out of range.

    Example:
        >>> model = ShellModel(generator=torch.Generator().manual_seed(0))
        >>> kappa = torch.arange(1.0, 22.0, dtype=torch.float64)
        >>> E = kappa**4 * torch.exp(-2 * (kappa / 4) ** 2)
        >>> model.forecast((kappa, E / E.sum()), nu=0.03, t=[0.0, 1.0]).k.shape
        torch.Size([2])

    Source: Leith, Phys. Fluids 10, 1409 (1967), for the diffusion; Orszag, J. Fluid Mech. 41,
        363 (1970), for the symmetric form; the learned factor is that of sciflow.
    """

    def __init__(
        self,
        reach: int = 4,
        width: int = 24,
        depth: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("reach", reach, 1), ("width", width, 0), ("depth", depth, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")
        self.config = {"reach": reach, "width": width, "depth": depth}
        self.reach = reach
        self.log_constant = nn.Parameter(torch.tensor(math.log(0.1), dtype=torch.float64))
        self.log_buildup = nn.Parameter(torch.tensor(math.log(0.4), dtype=torch.float64))
        # Little of what Leith's nearest neighbours exchange, in the beginning.
        share = torch.full((reach,), -5.0, dtype=torch.float64)
        share[0] = 0.0
        self.log_share = nn.Parameter(share) if reach > 1 else None
        self.net = (
            MLP(_FEATURES, 2 * reach, width, depth, generator=generator, zero=True).double()
            if width
            else None
        )

    def exchange(
        self,
        grid: ShellGrid,
        u: Float[Tensor, "shells batch"],
        age: Float[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "shells shells batch"]:
        """The symmetric rates c_ij.

        Args:
            grid: the shells.
            u: their energies.
            age: time since a Gaussian start, infinite where there was none; None for all.
        """
        f = u / (grid.kappa**2 * grid.width)
        floor = 1e-30 * f.detach().amax(0)
        square = grid.kappa**2 * u
        strain = (square.cumsum(0) + floor).sqrt()
        viscous = grid.nu * grid.kappa**2
        factor = None if self.net is None else self.net(self._features(grid, u, strain))
        c = u.new_zeros(grid.n, grid.n, u.shape[1])
        for d in range(1, min(self.reach, grid.n - 1) + 1):
            low, high = grid.kappa[:-d], grid.kappa[d:]
            middle = ((f[:-d] + f[d:]) / 2 + floor).sqrt()
            log: Tensor = self.log_constant
            if self.log_share is not None:
                log = log + self.log_share[d - 1]
            if factor is not None:
                x = factor[:-d, :, d - 1] + factor[d:, :, self.reach + d - 1]
                log = log + _BOUND * torch.tanh(x / _BOUND)
            rate = torch.exp(log) * (low * high) ** (13 / 4) * middle / (high - low)
            if age is not None:
                turn = torch.exp(self.log_buildup) * (strain[:-d] + strain[d:])
                born = torch.isfinite(age)
                since = torch.where(born, age, 0.0)
                built = -torch.expm1(-(turn + viscous[:-d] + viscous[d:]) * since)
                rate = torch.where(born, built, 1.0) * rate
            rate = rate * (grid.mask[:-d] * grid.mask[d:])
            c = c + torch.diag_embed(rate.T, offset=d).permute(1, 2, 0)
        return c + c.transpose(0, 1)

    def _features(self, grid: ShellGrid, u: Tensor, strain: Tensor) -> Tensor:
        """What the network sees of each shell, numbers of order 1, (N, B, features)."""
        E = u / grid.width
        log_E = (E + 1e-25 * E.detach().amax(0)).log()
        slope = torch.gradient(log_E, spacing=math.log(RATIO), dim=0)[0]
        local = (log_E + 3 * grid.kappa.log()) / 2 - strain.log()
        viscous = (grid.nu * grid.kappa**2 / strain).log()
        integral = (u / grid.kappa).sum(0) / u.sum(0)
        cut = grid.first * RATIO ** (grid.mask.sum(0) - 1)
        x = torch.stack(
            [
                (slope + 2) / 4,
                viscous / 2,
                local / 2,
                (grid.kappa * integral).log() / 2,
                3 * torch.exp(-(cut / grid.kappa).log().clamp_min(0)),
            ],
            -1,
        )
        # Far down in the dissipation range all are huge, and differences matter no more.
        return 3 * torch.tanh(x / 3)

    def march(
        self,
        grid: ShellGrid,
        u: Float[Tensor, "shells batch"],
        t: Float[Tensor, "time batch"],
        age: Float[Tensor, " batch"] | None = None,
        coarse: float = 1.0,
        most: int | None = None,
    ) -> Float[Tensor, "time shells batch"]:
        """Energies at times ``t`` from ``u`` at the first of them; differentiable.

        Every decay steps on its own and lands on its own times.

        Args:
            grid: the shells.
            u: energies at ``t[0]``.
            t: increasing times, or repeated ones, where a decay waits.
            age: time since a Gaussian start at ``t[0]``, infinite where there was none.
            coarse: factor of the time steps.
            most: largest number of steps between two times, whatever their error.

        Raises:
            DataError: the times need too many steps.
        """
        last, states, now = len(t) - 1, [u], t[0]
        goal = torch.zeros_like(now, dtype=torch.long)
        taken = torch.zeros_like(goal)
        step = torch.zeros_like(t, dtype=torch.long)
        previous: Tensor | None = None
        for number in range(1, _STEPS):
            # Times that have been reached: energies after as many steps are theirs.
            while bool((ready := (goal < last) & (_pick(t, goal + 1) <= now)).any()):
                goal = goal + ready
                here = torch.where(ready, number - 1, _pick(step, goal))
                step = step.scatter(0, goal[None], here[None])
            active = goal < last
            if not bool(active.any()):
                break
            c = self.exchange(grid, u, None if age is None else age + (now - t[0]))
            with torch.no_grad():
                previous = grid.time_step(grid.moments(u, now, c), previous, coarse)
                end = _pick(t, goal + 1)
                left = torch.where(active, end - now, 0.0)
                pieces = (left / previous - 1e-9).ceil().clamp_min(1.0)
                if most is not None:
                    # Of the whole interval, of which ``taken`` steps are done.
                    pieces = torch.minimum(pieces, (most - taken).clamp_min(1).to(pieces))
            dt = left / pieces
            middle = None if age is None else age + (now - t[0]) + dt / 2
            u = grid.advance(u, dt, c, partial(self.exchange, grid, age=middle))
            states.append(u)
            arrived = active & (pieces == 1)
            now = torch.where(arrived, end, now + dt)
            taken = torch.where(arrived, 0, taken + 1)
        else:
            raise DataError(f"t needs more than {_STEPS} steps; does it belong to the spectrum?")
        rows = step[:, None, :].expand(-1, grid.n, -1)
        return torch.stack(states).gather(0, rows)

    def forecast(
        self,
        spectrum: tuple[Any, Any],
        nu: Any,
        t: Any,
        *,
        k0: Any = None,
        eps0: Any = None,
        box: Any = None,
        k_max: Any = None,
        gaussian: bool = False,
    ) -> ShellForecast:
        """Energy, dissipation and spectra of one decay at later times; any consistent units.

        Args:
            spectrum: (kappa, E), both (S,), E per wavenumber at ``t[0]``.
            nu: kinematic viscosity.
            t: increasing times (T,).
            k0: kinetic energy at ``t[0]``; None takes that of the spectrum.
            eps0: dissipation rate at ``t[0]``, the same. Where they are given the spectrum is
                multiplied by a power of kappa that makes them exact.
            box: side of the periodic box: shells begin at 2 pi / box, as E ~ kappa^4 at
                most below the spectrum; without it they begin with the spectrum.
            k_max: largest resolved wavenumber, where the shells end; without it they go on, with
                an exponential tail, until all dissipation is within them.
            gaussian: whether the start is a random field without triple correlations.

        Raises:
            ValueError: a number that is not positive and finite, times that do not increase,
                shapes that do not fit.
            DataError: k0 or eps0 far from what the spectrum holds, or no room between box and
                k_max.
        """
        kappa, E = _checked_spectrum(spectrum)
        viscosity = _positive("nu", nu)
        energy, rate = _optional("k0", k0), _optional("eps0", eps0)
        side, cut = _optional("box", box), _optional("k_max", k_max)
        times = torch.as_tensor(t, dtype=torch.float64, device=self.log_constant.device)
        if times.ndim != 1 or len(times) < 1:
            raise ValueError(f"t must be (T,); got {tuple(times.shape)}")
        if not torch.isfinite(times).all() or not (times.diff() > 0).all():
            raise ValueError("t must be finite and increase")
        device = times.device
        kappa, E, viscosity = kappa.to(device), E.to(device), viscosity.to(device)
        if cut is None:
            grid = resolved_grid(kappa.detach(), E.detach(), viscosity, side)
        else:
            grid = grid_of(float(kappa[0]), viscosity, side, float(cut))
        u = shell_energies(grid, kappa, E)
        u = tilted(grid, u, energy, rate)
        age = torch.zeros(1, dtype=torch.float64, device=device) if gaussian else None
        states = self.march(grid, u[:, None], times[:, None], age)[..., 0]
        eps = 2 * viscosity * (grid.kappa[:, 0] ** 2 * states).sum(-1)
        return ShellForecast(
            t=times,
            k=states.sum(-1),
            eps=eps,
            kappa=grid.kappa[:, 0],
            spectrum=states / grid.width[:, 0],
            nu=viscosity,
        )

    def save(self, path: str | Path) -> Path:
        """Write the weights to a .safetensors file."""
        return save_model(path, self, self.config, extra={"model": "shells"})

    @staticmethod
    def load(path: str | Path) -> ShellModel:
        """A model that `save` wrote.

        Raises:
            DataError: the file is not of a shell model.
        """
        if load_metadata(path).extra.get("model") != "shells":
            raise DataError(f"{path} is not the file of a shell model")
        return cast(ShellModel, load_model(path, lambda config: ShellModel(**config)))


def _pick(x: Tensor, row: Tensor) -> Tensor:
    """x[row_b, b] for every decay, the last row where there is none."""
    return x.gather(0, row.clamp_max(len(x) - 1)[None])[0]


def _positive(name: str, value: Any) -> Tensor:
    x = torch.as_tensor(value, dtype=torch.float64)
    if x.ndim or not torch.isfinite(x) or not x > 0:
        raise ValueError(f"{name} must be one positive number; got {value}")
    return x


def _optional(name: str, value: Any) -> Tensor | None:
    return None if value is None else _positive(name, value)


def _checked_spectrum(spectrum: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    kappa, E = (torch.as_tensor(x, dtype=torch.float64) for x in spectrum)
    if kappa.ndim != 1 or len(kappa) < 5 or E.shape != kappa.shape:
        raise ValueError(
            "spectrum must be (kappa, E), both of shape (S,), S at least 5; got "
            f"{tuple(kappa.shape)} and {tuple(E.shape)}"
        )
    if not torch.isfinite(E).all() or (E < 0).any() or not (E > 0).any():
        raise ValueError("spectrum: E must be finite, not negative, and somewhere positive")
    if not torch.isfinite(kappa).all() or not (kappa > 0).all() or not (kappa.diff() > 0).all():
        raise ValueError("spectrum: kappa must be positive, finite and increase")
    return kappa, E
