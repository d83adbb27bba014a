"""What every ansatz shares: determinants, envelopes and exact cusps around a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import skip_init

from sciflow.nn.laplacian import Jet, convolve, differences, spread
from sciflow.shapes import Float, Tensor
from sciflow.train import save_model
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.start import basis, start

# Size of the network's part of the orbitals at the start, beside the Slater orbitals.
_SMALL = 0.03


def linear(n_in: int, n_out: int, generator: torch.Generator, bias: bool = True) -> nn.Linear:
    """A layer with weights of variance 1 / n_in and a bias of zero."""
    layer = skip_init(nn.Linear, n_in, n_out, bias=bias)
    nn.init.normal_(layer.weight, std=n_in**-0.5, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Wavefunction(nn.Module, ABC):
    """Antisymmetric psi(x) = exp(J) sum_k det Phi_k with full determinants.

    Orbitals are ``Phi_ij = sum_m chi_m(x_i) C_mj + e_j(x_i) (w_j . h_i)``: Slater orbitals of the
    start, and the network ``h_i`` under envelopes ``e_j = sum_A pi_jA exp(-zeta_jA ro_iA)``. The
    C_mj stay as they are, since a little of a diffuse orbital in that of a core would make psi too
    large where the core is left, where walkers seldom are to correct it. All exponents stay within
    half of their start: psi decays whatever the noise of training. All of it is smooth at
    coalescence, so that the two terms of J that are not, ``-Z (r_iA - ro_iA)`` and
    ``-c a^2 / (a + r_ij)`` with c = 1/4 for equal and 1/2 for unlike spins, make the cusps exact
    (Kato 1957; Pack and Byers Brown 1966).

    The network sees each electron through ``d log(1 + rs) / rs`` and ``log(1 + rs)`` of each
    nucleus, ``rs = sqrt(r^2 + Z^-2)``; electrons of spin up come first.

    Args:
        molecule: nuclei and electrons.
        determinants: number of determinants K.
        width: width of ``h``.
        generator: source of the initial weights.
        config: settings that rebuild the ansatz, besides the molecule.

    Raises:
        ValueError: a size is not positive, or the charge is too negative for the start.
    """

    name = ""
    nuclei: Tensor
    charges: Tensor
    power: Tensor
    cusp: Tensor
    alike: Tensor
    one: Tensor
    slater: Tensor
    exponent: Tensor
    zeta: Tensor

    def __init__(
        self,
        molecule: Molecule,
        determinants: int,
        width: int,
        generator: torch.Generator,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        for key, size in {"determinants": determinants, "width": width, **config}.items():
            if size < 1:
                raise ValueError(f"{key} must be at least 1; got {size}")
        self.molecule = molecule
        self.config = {"determinants": determinants, "width": width, **config}
        self.determinants, n = determinants, molecule.n_electrons
        functions, first = basis(molecule), start(molecule, determinants)
        self.shape = (determinants, n)
        spin = torch.arange(n) >= molecule.n_up
        alike = (spin[:, None] == spin)[:, :, None]
        one = torch.eye(n)[:, :, None]
        charges = torch.tensor(molecule.charges, dtype=torch.float64)
        buffers = {
            "nuclei": molecule.coordinates(),
            "charges": charges,
            "power": torch.tensor([float(f.power) for f in functions]),
            # (N, N, 1); half of Kato's values, since every pair enters twice
            "cusp": torch.where(alike, 0.125, 0.25) * (1 - one),
            "alike": alike.double(),
            "one": one,
        }
        for key, value in buffers.items():
            self.register_buffer(key, value, persistent=False)
        self.spin = spin.long().tolist()
        self.home = [f.nucleus for f in functions]
        self.angular = [0 if f.axis < 0 else 1 + 3 * f.nucleus + f.axis for f in functions]

        flat = determinants * n
        self.softness = nn.Parameter(1 / charges)
        self.register_buffer("slater", first.coefficients.reshape(2, -1, flat))
        self.register_buffer("exponent", torch.tensor([f.exponent for f in functions]))
        self.register_buffer("zeta", first.exponents.reshape(2, -1, flat))
        self.exponent_change = nn.Parameter(torch.zeros_like(self.exponent))
        self.zeta_change = nn.Parameter(torch.zeros_like(self.zeta))
        self.pi = nn.Parameter(first.weights.reshape(2, -1, flat))
        heads = torch.randn(
            2, width, flat, dtype=torch.float64, device=generator.device, generator=generator
        )
        self.heads = nn.Parameter(_SMALL * width**-0.5 * heads.cpu())
        self.log_range = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.jastrow = nn.Parameter(torch.zeros(width, 1, dtype=torch.float64))
        self.to(torch.get_default_dtype())

    n_features = property(lambda self: 4 * len(self.molecule.symbols))

    @abstractmethod
    def network(self, features: Any, x: Any) -> Any:
        """The part of each ansatz: ``h`` (B, N, width) that mixes electrons.

        Args:
            features: of each electron by itself (B, N, 4 A), a tensor or a local jet.
            x: electrons (B, N, 3), a tensor or a jet of each.
        """

    def forward(
        self, x: Float[Tensor, "batch electron 3"]
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
        """Sign of psi, and log|psi| up to a constant, at ``x`` (B, N, 3) [bohr].

        Raises:
            ValueError: ``x`` has another shape.
        """
        n = self.molecule.n_electrons
        if x.ndim != 3 or x.shape[1:] != (n, 3):
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, {n}, 3)")
        return self.sign_log(x)

    def log_psi(self, x: Any) -> Any:
        """log|psi| (B,) of a tensor or a local jet (see `sciflow.nn.laplacian`)."""
        return self.sign_log(x)[1]

    def sign_log(self, x: Any) -> tuple[Tensor, Any]:
        """Sign and log|psi| without the check of the shape, of a tensor or a local jet."""
        matrices, nuclear, h = self.orbitals(x)
        signs, logs = torch.linalg.slogdet(matrices)
        top = (logs.value if isinstance(logs, Jet) else logs).detach().amax(-1, keepdim=True)
        total = (torch.exp(logs - top) * signs).sum(-1)
        sign = torch.sign(total.value if isinstance(total, Jet) else total)
        log = torch.log(torch.abs(total)) + top[..., 0]
        smooth = spread(nuclear) + h @ self.jastrow + self._electron_cusp(x)
        return sign, log + smooth.sum((-2, -1)).double()

    def orbitals(self, x: Any) -> tuple[Any, Any, Any]:
        """What the determinants are made of.

        Returns:
            the matrices (B, K, N electrons, N orbitals) in float64, the exponent of the
            electron-nucleus cusp of each electron (B, N, 1), and the network's h (B, N, width).
        """
        d = x.unsqueeze(-2) - self.nuclei  # (B, N, A, 3)
        r2 = d.square().sum(-1)
        ro = torch.sqrt(r2 + self.softness.square())
        rs = torch.sqrt(r2 + self.charges**-2)
        stretch = torch.log1p(rs)
        directions = (d * (stretch / rs).unsqueeze(-1)).flatten(-2)
        h = self.network(torch.cat([directions, stretch], -1), x)
        phi = spread(self._slater(d, ro)) + spread(self._envelope(ro)) * self._by_spin(
            h, self.heads
        )
        # (B, N electrons, K N) -> (B, K, N, N), in double precision from here on.
        matrices = phi.unflatten(-1, self.shape).transpose(-3, -2).double()
        nuclear = ((torch.sqrt(r2) - ro) * -self.charges).sum(-1).unsqueeze(-1)
        return matrices, nuclear, h

    def _by_spin(self, y: Any, weights: Tensor) -> Any:
        """``y`` (B, N, m) times the weights (2, m, K N) of the spin of each electron."""
        n_up = self.molecule.n_up
        if self.molecule.n_down == 0:
            return y @ weights[0]
        if n_up == 0:
            return y @ weights[1]
        return torch.cat([y[..., :n_up, :] @ weights[0], y[..., n_up:, :] @ weights[1]], -2)

    def _slater(self, d: Any, ro: Any) -> Any:
        own = ro[..., self.home]
        exponent = _changed(self.exponent, self.exponent_change)
        radial = torch.exp(torch.log(own) * self.power - own * exponent)
        one = torch.ones_like(d.value if isinstance(d, Jet) else d)[..., 0, :1]
        angular = torch.cat([one, d.flatten(-2)], -1)[..., self.angular]
        return self._by_spin(radial * angular, self.slater)

    def _envelope(self, ro: Any) -> Any:
        zeta = _changed(self.zeta, self.zeta_change)
        decay = torch.exp(ro.unsqueeze(-1) * -zeta[self.spin])  # (B, N, A, K N)
        return (decay * self.pi[self.spin]).sum(-2)

    def _electron_cusp(self, x: Any) -> Any:
        # 1 on the diagonal, where a distance of zero would have no derivative.
        r = torch.sqrt(differences(x).square().sum(-1, keepdim=True) + self.one)
        a = torch.exp(self.log_range)
        a = a[0] + (a[1] - a[0]) * self.alike
        return convolve((-self.cusp * a.square()) / (a + r), torch.ones_like(self.one[0]))

    def save(self, path: str | Path) -> Path:
        """Write the wave function as safetensors, with molecule and settings as JSON metadata."""
        mol = self.molecule
        config = {
            "ansatz": self.name,
            "symbols": list(mol.symbols),
            "positions": [list(row) for row in mol.positions],
            "charge": mol.charge,
            "spin": mol.spin,
            **self.config,
        }
        return save_model(path, self, config, units={"x": "bohr", "energy": "hartree"})


def _changed(exponent: Tensor, change: Tensor) -> Tensor:
    """An exponent of the start, times a factor between 1/2 and 3/2."""
    return exponent * (1 + 0.5 * torch.tanh(change))


def features_of_pairs(x: Any, alike: Tensor, charges: Tensor) -> Any:
    """Of electrons i and j: direction, distance and whether their spins are equal (B, N, N, 5).

    Smooth where they meet, since ``rs = sqrt(r^2 + z^-2)`` stands for the distance. In units of
    the smallest core, 1 / z of the largest charge: the correlation of its electrons is resolved.
    """
    z = charges.amax()
    d = differences(x)
    rs = torch.sqrt(d.square().sum(-1, keepdim=True) + z**-2)
    stretch = torch.log1p(rs * z)
    return torch.cat([d * stretch / rs, stretch, alike.expand(*d.shape[:-1], 1)], -1)


def bias_of_spin(layer: nn.Linear, features: Any, offsets: Tensor, spin: list[int]) -> Any:
    """A linear layer of each electron, with an offset (2, width) for its spin."""
    return F.linear(features, layer.weight, layer.bias) + offsets[spin]
