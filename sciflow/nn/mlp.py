"""Multilayer perceptron."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from sciflow.nn.pullback import Pullback, sweep_and_pullback
from sciflow.shapes import Float, Tensor


class MLP(nn.Module):
    """Fully connected network with SiLU between its layers.

    SiLU is smooth, so that networks may be differentiated twice and more, as gradients of
    potentials and their training need.

    Args:
        n_in: width of the input.
        n_out: width of the output.
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.
        zero: start with an output of zero, whatever the input.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        width: int = 64,
        depth: int = 3,
        *,
        generator: torch.Generator | None = None,
        zero: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("n_in", n_in), ("n_out", n_out), ("width", width), ("depth", depth)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1; got {size}")
        sizes = [n_in, *[width] * depth, n_out]
        layers = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        for layer in layers:
            # The uniform initialisation of nn.Linear, from a generator of our own.
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        if zero:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)
        self.layers = nn.ModuleList(layers)

    def along(
        self, x: Float[Tensor, "*batch n_in"], dx: Float[Tensor, "*batch n_in"]
    ) -> tuple[Float[Tensor, "*batch n_out"], Float[Tensor, "*batch n_out"]]:
        """Output and its derivative along ``dx``, in one forward sweep.

        Written out, because torch's forward mode differentiates SiLU in Python: several times
        the cost of the network itself.
        """
        *hidden, last = (cast(nn.Linear, layer) for layer in self.layers)
        for layer in hidden:
            z, dz = layer(x), nn.functional.linear(dx, layer.weight)
            gate = torch.sigmoid(z)
            x = z * gate
            dx = dz * (gate + x * (1 - gate))
        return last(x), nn.functional.linear(dx, last.weight)

    def pullback(
        self, x: Float[Tensor, "*batch n_in"]
    ) -> tuple[Float[Tensor, "*batch n_out"], Pullback]:
        """Output, and the function that carries a cotangent of the output back to the input.

        The vector-Jacobian product is written out from what the forward sweep left, so that it
        needs no graph, and costs no second sweep where training differentiates it once more.
        """
        *hidden, last = (cast(nn.Linear, layer) for layer in self.layers)
        if torch.is_grad_enabled():
            pairs = [(layer.weight, layer.bias) for layer in (*hidden, last)]
            return sweep_and_pullback(x, [x for pair in pairs for x in pair])
        kept: list[tuple[nn.Linear, Tensor]] = []
        for layer in hidden:
            z = layer(x)
            kept.append((layer, z))
            x = nn.functional.silu(z)

        def pull(cotangent: Tensor) -> Tensor:
            cotangent = cotangent @ last.weight
            for layer, z in reversed(kept):
                # torch's own kernel is the fastest, and has no derivative
                cotangent = torch.ops.aten.silu_backward(cotangent, z) @ layer.weight
            return cotangent

        return last(x), pull

    def forward(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        """Output of the network."""
        for layer in self.layers[:-1]:
            x = nn.functional.silu(layer(x))
        return self.layers[-1](x)
