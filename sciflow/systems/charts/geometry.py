"""Bonds, angles and torsions of atoms, with their gradients, and an atom placed by the three.

Positions have shape (B, N, 3). A torsion has the sign of IUPAC: looking along the middle bond,
positive where the far bond is turned clockwise from the near one.

Source: Wilson, Decius, Cross, Molecular Vibrations (1955), chapter 4; Blondel, Karplus,
J. Comput. Chem. 17, 1132 (1996), equation (27), for the gradient of the torsion.
"""

from __future__ import annotations

import math

import torch

from sciflow.shapes import Float, Int, Tensor

Points = Float[Tensor, "batch atom 3"]


def bond_lengths(x: Points, atoms: Int[Tensor, "row 2"]) -> Float[Tensor, "batch row"]:
    """Distance between two atoms, in the unit of ``x``."""
    a, b = x[:, atoms].unbind(2)
    return (a - b).norm(dim=-1)


def angles(x: Points, atoms: Int[Tensor, "row 3"]) -> Float[Tensor, "batch row"]:
    """Angle [rad] at the middle one of three atoms, in [0, pi]."""
    a, b, c = x[:, atoms].unbind(2)
    u, v = a - b, c - b
    # The arctangent keeps its digits where the cosine loses them, near 0 and pi.
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1))


def torsions(x: Points, atoms: Int[Tensor, "row 4"]) -> Float[Tensor, "batch row"]:
    """Torsion [rad] of four atoms about the middle two, in (-pi, pi]."""
    a, b, c, d = x[:, atoms].unbind(2)
    u, v, w = b - a, c - b, d - c
    uv, vw = torch.linalg.cross(u, v), torch.linalg.cross(v, w)
    return torch.atan2(v.norm(dim=-1) * (u * vw).sum(-1), (uv * vw).sum(-1))


def wrap(angle: Tensor) -> Tensor:
    """The same angle [rad] in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def bond_gradients(
    x: Points, atoms: Int[Tensor, "row 2"]
) -> tuple[Float[Tensor, "batch row"], Float[Tensor, "batch row 2 3"]]:
    """Bond lengths, and their gradients with respect to the two atoms."""
    a, b = x[:, atoms].unbind(2)
    u = a - b
    r = u.norm(dim=-1)
    e = u / r[..., None]
    return r, torch.stack([e, -e], 2)


def angle_gradients(
    x: Points, atoms: Int[Tensor, "row 3"]
) -> tuple[Float[Tensor, "batch row"], Float[Tensor, "batch row 3 3"]]:
    """Angles, and their gradients with respect to the three atoms."""
    a, b, c = x[:, atoms].unbind(2)
    u, v = a - b, c - b
    r, s = u.norm(dim=-1, keepdim=True), v.norm(dim=-1, keepdim=True)
    u, v = u / r, v / s
    cosine = (u * v).sum(-1, keepdim=True)
    sine = torch.linalg.cross(u, v).norm(dim=-1, keepdim=True)
    first, last = (cosine * u - v) / (r * sine), (cosine * v - u) / (s * sine)
    value = torch.atan2(sine, cosine)[..., 0]
    return value, torch.stack([first, -first - last, last], 2)


def torsion_gradients(
    x: Points, atoms: Int[Tensor, "row 4"]
) -> tuple[Float[Tensor, "batch row"], Float[Tensor, "batch row 4 3"]]:
    """Torsions, and their gradients with respect to the four atoms."""
    i, j, k, l = x[:, atoms].unbind(2)
    f, g, h = i - j, j - k, l - k
    a, b = torch.linalg.cross(f, g), torch.linalg.cross(h, g)
    length = g.norm(dim=-1, keepdim=True)
    a_unit = a / a.square().sum(-1, keepdim=True)
    b_unit = b / b.square().sum(-1, keepdim=True)
    shear = (f * g).sum(-1, keepdim=True) / length * a_unit
    shear = shear - (h * g).sum(-1, keepdim=True) / length * b_unit
    first, last = -length * a_unit, length * b_unit
    gradient = torch.stack([first, shear - first, -shear - last, last], 2)
    value = torch.atan2(length[..., 0] * -(f * torch.linalg.cross(g, h)).sum(-1), (a * b).sum(-1))
    return value, gradient


def place(
    bond_to: Float[Tensor, "batch row 3"],
    angle_to: Float[Tensor, "batch row 3"],
    torsion_to: Float[Tensor, "batch row 3"],
    r: Float[Tensor, "batch row"],
    theta: Float[Tensor, "batch row"],
    phi: Float[Tensor, "batch row"],
) -> Float[Tensor, "batch row 3"]:
    """Position of an atom from its bond length, angle and torsion to three others."""
    e = torch.nn.functional.normalize(bond_to - angle_to, dim=-1)
    away = angle_to - torsion_to
    n = torch.nn.functional.normalize(torch.linalg.cross(away, e), dim=-1)
    m = torch.linalg.cross(n, e)
    along = -(r * theta.cos())[..., None] * e
    across = phi.cos()[..., None] * m + phi.sin()[..., None] * n
    return bond_to + along + (r * theta.sin())[..., None] * across
