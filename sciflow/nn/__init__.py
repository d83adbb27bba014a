"""Small networks that more than one door uses."""

from sciflow.nn.mlp import MLP
from sciflow.nn.splines import Spline, make_spline, n_spline_parameters, wrap

__all__ = ["MLP", "Spline", "make_spline", "n_spline_parameters", "wrap"]
