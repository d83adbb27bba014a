"""Small networks that more than one door uses."""

from sciflow.nn.mlp import MLP

__all__ = ["MLP"]
