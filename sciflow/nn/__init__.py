"""Small networks that more than one door uses."""

from sciflow.nn.mlp import MLP
from sciflow.nn.tangent import silu_layer_along

__all__ = ["MLP", "silu_layer_along"]
