"""Small networks that more than one door uses."""

from sciflow.nn.mlp import MLP
from sciflow.nn.splines import Spline, make_spline, n_spline_parameters, wrap
from sciflow.nn.tangent import silu_layer_along

__all__ = [
    "MLP",
    "Spline",
    "make_spline",
    "n_spline_parameters",
    "silu_layer_along",
    "wrap",
]
