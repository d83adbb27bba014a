"""Model energy spectra that decays start from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sciflow.shapes import Float, Tensor

#: E(kappa): energy per mass and wavenumber, (shells,) to (shells,), float64.
Spectrum = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class PeakedSpectrum:
    """E ~ kappa^slope up to a peak, then a fall of one of three kinds, with a given energy.

    Attributes:
        peak: wavenumber of the peak.
        slope: power at small wavenumbers: 2 (Saffman), 4 (Batchelor), above -1.
        fall: "gauss": exp(-slope (kappa/peak)^2 / 2); "exp": exp(-slope kappa / peak);
            "power": kappa^(-5/3) beyond the peak, as turbulence that has developed already.
        k: kinetic energy per mass of the whole spectrum.

    Raises:
        ValueError: a value out of range.
    """

    peak: float
    slope: float = 4.0
    fall: str = "gauss"
    k: float = 1.5

    def __post_init__(self) -> None:
        for name, value in (("peak", self.peak), ("k", self.k), ("slope", self.slope)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive; got {value}")
        if self.fall not in _FALLS:
            raise ValueError(f"fall must be one of {', '.join(_FALLS)}; got {self.fall!r}")

    def __call__(self, kappa: Float[Tensor, " shells"]) -> Float[Tensor, " shells"]:
        """E at wavenumbers; their sum with the spacing as weight is ``k``."""
        x = kappa.double() / self.peak
        E = _FALLS[self.fall](x, self.slope)
        spacing = torch.gradient(kappa.double())[0] if len(kappa) > 1 else torch.ones(1)
        return E * (self.k / (E * spacing).sum())


def _gauss(x: Tensor, slope: float) -> Tensor:
    return x**slope * torch.exp(-slope / 2 * x**2)


def _exp(x: Tensor, slope: float) -> Tensor:
    return x**slope * torch.exp(-slope * x)


def _power(x: Tensor, slope: float) -> Tensor:
    # Von Karman's interpolation, with its maximum at x = 1.
    a = 5 / 3 / slope
    return x**slope * (a + x**2) ** (-(slope + 5 / 3) / 2)


_FALLS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gauss": _gauss,
    "exp": _exp,
    "power": _power,
}
