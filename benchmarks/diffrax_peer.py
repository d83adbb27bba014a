"""The network of ``neural_fields`` in JAX, solved by diffrax with one step for all samples."""

import os
from collections.abc import Callable
from typing import Any

import torch

# One thread, as the others; read when JAX is imported.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)


class Peer:
    """Forward solve, and gradient by diffrax's default (recursive checkpoints), both jitted."""

    def __init__(self, net: Any, y0: torch.Tensor) -> None:
        import diffrax
        import jax
        import jax.numpy as jnp

        layers = [m for m in net.layers if isinstance(m, torch.nn.Linear)]
        params = [
            (jnp.asarray(m.weight.detach().cpu().numpy().T), jnp.asarray(m.bias.detach().numpy()))
            for m in layers
        ]
        gain, start = net.gain, jnp.asarray(y0.cpu().numpy())

        def field(t: Any, y: Any, args: Any) -> Any:
            x = jnp.concatenate([y, jnp.full((len(y), 1), t)], 1)
            for weight, bias in args[:-1]:
                x = jnp.tanh(x @ weight + bias)
            weight, bias = args[-1]
            return gain * (x @ weight + bias)

        def solve(params: Any, y: Any, tolerance: Any) -> tuple[Any, Any]:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(field), diffrax.Dopri5(), 0.0, 1.0, None, y, params,
                stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            )  # fmt: skip
            return solution.ys[-1], solution.stats["num_steps"]

        forward = jax.jit(solve)
        gradient = jax.jit(
            jax.grad(lambda p, y, tol: (solve(p, y, tol)[0] ** 2).sum(), argnums=(0, 1))
        )
        self._forward = lambda tol: jax.block_until_ready(forward(params, start, tol))
        self._gradient = lambda tol: jax.block_until_ready(gradient(params, start, tol))

    def forward(self, tolerance: float) -> torch.Tensor:
        """Final state."""
        return torch.tensor(self._forward(tolerance)[0].__array__())

    def evaluations(self, tolerance: float) -> int:
        """Evaluations of the field: six a step, and one to begin with."""
        return 1 + 6 * int(self._forward(tolerance)[1])

    def timed(self, tolerance: float) -> Callable[[], Any]:
        """The solve, without a copy of its result."""
        return lambda: self._forward(tolerance)

    def gradient(self, tolerance: float) -> Callable[[], Any]:
        """The solve and its gradient."""
        return lambda: self._gradient(tolerance)
