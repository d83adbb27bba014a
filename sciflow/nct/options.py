"""Settings of a fit, and what both fits check and do at their end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from sciflow.nct.build import Architecture
from sciflow.nct.latent import base_draws
from sciflow.nct.model import CanonicalTransformation
from sciflow.nct.natural import make_ascending, make_natural
from sciflow.shapes import Float, Tensor
from sciflow.train import RunOptions, Trainer

#: Points that means over the model are taken over after a fit: frequencies of natural modes.
MEASURED = 4096


@dataclass(frozen=True, kw_only=True)
class FitOptions(Architecture, RunOptions):
    """Settings of a fit."""

    steps: int = 2000
    """Updates of the networks; 0 fits the linear map alone."""
    batch_size: int = 256
    """Points per update."""
    lr: float = 2e-3
    """Learning rate (Adam), after a warm-up over the first twentieth of the steps and before a
    cosine decay to zero."""
    ema: float = 0.99
    """Decay per step of the running average of the weights that the fit returns."""
    clip: float | None = 10.0
    """Largest gradient norm; None does not clip."""
    linear_steps: int = 10
    """Rounds of L-BFGS on the linear map before the networks; 0 starts from the modes at the
    minimum."""
    linear_draws: int = 4096
    """Base draws that those rounds are made on."""
    whiten: bool = True
    """Give each batch of base draws mean zero and unit covariance."""
    temper: float = 1.0
    """Factor of the temperature at the start, which falls to 1 over the first half of the steps:
    above 1 the model spreads over basins that it would miss."""
    validation: float = 0.1
    """Share of the trajectories of a fit to samples that chooses the best weights."""
    dtype: Literal["float32", "float64"] = "float64"
    """Floating type of the networks."""
    compile: bool = False
    """Compile the objective with torch.compile."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.linear_steps < 0:
            raise ValueError(
                f"steps and linear_steps must not be negative; got {self.steps} and "
                f"{self.linear_steps}"
            )
        if not self.temper >= 1:
            raise ValueError(f"temper must be at least 1; got {self.temper}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must be between 0 and 1; got {self.validation}")

    def check_reading(self, strict: bool) -> None:
        """Refuse layers that the reading of the model does not allow.

        Raises:
            ValueError: shears without ``strict``.
        """
        if self.shears and not strict:
            raise ValueError("shears mix coordinates with momenta: they need strict=True")

    def trainer(self) -> Trainer:
        """The trainer of the networks."""
        return Trainer(
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            ema=self.ema,
            clip=self.clip,
            warmup=self.steps // 20,
            dtype=self.dtype,
            compile=self.compile,
            **self.run_settings,
        )


def check_mass(
    mass: float | Sequence[float] | Tensor, shape: Sequence[int]
) -> Float[Tensor, "*shape"]:
    """Masses of each entry of q, in float64.

    Raises:
        ValueError: another number of masses, or some not positive.
    """
    values = torch.as_tensor(mass, dtype=torch.float64).detach().cpu()
    if len(shape) == 2 and values.ndim == 1:
        values = values[:, None]  # one for each atom
    try:
        values = values.expand(tuple(shape))
    except RuntimeError:
        raise ValueError(
            f"mass has shape {tuple(values.shape)}; expected one number or {tuple(shape)}"
        ) from None
    if not bool((torch.isfinite(values) & (values > 0)).all()):
        raise ValueError("mass must be positive and finite")
    return values.clone()


def check_kT(kT: float) -> None:
    """Refuse what is no thermal energy.

    Raises:
        ValueError: it is not positive and finite.
    """
    if not (math.isfinite(kT) and kT > 0):
        raise ValueError(f"kT must be positive and finite; got {kT}")


def finish(model: CanonicalTransformation, xi: Tensor | None, generator: torch.Generator) -> None:
    """Order the modes, after turning them into natural ones where momenta are thermal."""
    model.requires_grad_(True).eval()
    if not len(model.latent.oscillators):
        return
    if model.strict:
        make_ascending(model)
        return
    with torch.no_grad():
        if xi is None:
            z = base_draws(MEASURED, model.n_dim, generator).to(model.mass)
            Q = model.latent.coordinates(z)
        else:
            Q = model.from_chart(xi.to(model.mass))[0]
        make_natural(model, Q)
