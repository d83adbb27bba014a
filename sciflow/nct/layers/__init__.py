"""Layers of canonical transformations: each symplectic by construction, each with its inverse."""

from __future__ import annotations

from sciflow.nct.layers.base import CanonicalLayer, PointMap
from sciflow.nct.layers.coupling import AffineCoupling, Coupling, SplineCoupling
from sciflow.nct.layers.curvilinear import ChartMap
from sciflow.nct.layers.elementwise import Elementwise, SplineMap, Unrolled
from sciflow.nct.layers.linear import Linear, Reorder, Scale
from sciflow.nct.layers.shear import HamiltonianFlow, Leapfrog

#: Layers by name: what a model file may hold.
LAYERS: dict[str, type[CanonicalLayer]] = {
    layer.__name__: layer
    for layer in (
        Linear,
        Scale,
        Reorder,
        AffineCoupling,
        SplineCoupling,
        SplineMap,
        Unrolled,
        Leapfrog,
        HamiltonianFlow,
    )
}

__all__ = [
    "LAYERS",
    "AffineCoupling",
    "CanonicalLayer",
    "ChartMap",
    "Coupling",
    "Elementwise",
    "HamiltonianFlow",
    "Leapfrog",
    "Linear",
    "PointMap",
    "Reorder",
    "Scale",
    "SplineCoupling",
    "SplineMap",
    "Unrolled",
]
