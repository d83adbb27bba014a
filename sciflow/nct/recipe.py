"""The two fits: from a potential, and from samples of coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sciflow.nct.build import (
    Architecture,
    Modes,
    build_layers,
    hessian_modes,
)
from sciflow.nct.latent import base_draws
from sciflow.nct.layers import Linear
from sciflow.nct.model import CanonicalTransformation, Potential, Units, evaluate
from sciflow.nct.natural import make_ascending, make_natural
from sciflow.nct.objective import BaseDraws, VariationalFreeEnergy
from sciflow.shapes import Float, Tensor
from sciflow.systems.charts import Chart
from sciflow.train import Trainer

# Points that means over the model are taken over after a fit: frequencies of natural modes.
_MEASURED = 4096


@dataclass(frozen=True, kw_only=True)
class FitOptions(Architecture):
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
    linear_steps: int = 20
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
    seed: int = 0
    """Seed of all randomness of the fit."""
    device: str = "auto"
    """Torch device: "auto", "cpu", "cuda"."""
    dtype: Literal["float32", "float64"] = "float64"
    """Floating type of the networks."""
    out: Path | None = None
    """Folder for log and checkpoints; None writes nothing."""
    log: str | None = "csv"
    """Log in that folder: "csv" or "tensorboard"."""
    resume: bool = False
    """Continue from the checkpoint in that folder."""
    compile: bool = False
    """Compile the objective with torch.compile."""
    progress: bool = True
    """Show a progress bar."""

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

    def trainer(self) -> Trainer:
        """The trainer of the networks."""
        return Trainer(
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            ema=self.ema,
            clip=self.clip,
            warmup=self.steps // 20,
            seed=self.seed,
            device=self.device,
            dtype=self.dtype,
            out=self.out,
            log=self.log,
            compile=self.compile,
            progress=self.progress,
        )


def fit_energy(
    potential: Potential,
    n_dim: int,
    mass: float | Sequence[float] | Tensor = 1.0,
    kT: float = 1.0,
    *,
    chart: Chart | None = None,
    strict: bool = False,
    start: Tensor | None = None,
    units: Units = "reduced",
    **options: Any,
) -> CanonicalTransformation:
    """Fit independent oscillators to a potential, by the variational free energy.

    The linear map starts from the normal modes at the nearest minimum, is brought to the best
    Gaussian by L-BFGS, and the networks around it, which start at the identity, are trained by
    Adam on path gradients.

    Args:
        potential: V of coordinates (B, n), shape (B,), an energy; differentiable.
        n_dim: number of coordinates n.
        mass: one mass, or n of them.
        kT: thermal energy, in the unit of the potential.
        chart: coordinates in which the system is simpler; angles become free rotors.
        strict: fit phase space, with the momenta of independent oscillators: the gap of the
            bound is then G_qp, and the frequencies are those of the latent Hamiltonian. By
            default the coordinates are fitted (gap G_q), momenta are exactly thermal, and
            frequencies are thermal widths of natural modes.
        start: (n,) coordinates where the search for a minimum begins; the origin (of the chart)
            where not given.
        units: "md" where the potential is in kJ/mol, coordinates in nm and masses in dalton.
        **options: fields of `FitOptions`.

    Returns:
        The model in eval mode, with ``history``.

    Raises:
        ValueError: masses of another number, a potential that gives another shape or nan, or a
            chart that does not fit.
        TrainingError: the loss is not finite.

    Example:
        >>> from sciflow.systems import HarmonicChain
        >>> chain = HarmonicChain(4)
        >>> model = fit_energy(chain.potential, 4, steps=0, progress=False)
        >>> bool((model.frequencies - chain.frequencies).abs().max() < 1e-6)
        True
    """
    settings = FitOptions(**options)
    mass = check_mass(mass, (n_dim,))
    check_kT(kT)
    if chart is not None and chart.n_dim != n_dim:
        raise ValueError(f"chart has {chart.n_dim} coordinates; expected n_dim = {n_dim}")
    chart = chart.double() if chart is not None else None
    periods = [math.inf] * n_dim if chart is None else chart.periods.tolist()
    line = torch.tensor([i for i, x in enumerate(periods) if math.isinf(x)], dtype=torch.long)
    xi0 = start_of(start, n_dim, chart)
    evaluate(potential, xi0 if chart is None else chart.inverse(xi0)[0])

    def energy(xi: Tensor) -> Tensor:
        """Of chart coordinates: its canonical density is theirs."""
        if chart is None:
            return potential(xi)
        q, log_det = chart.inverse(xi)
        return potential(q) - kT * log_det

    def metric(xi: Tensor) -> Tensor:
        if chart is None:
            return torch.diag(1 / mass)[None]
        return chart.metric(chart.inverse(xi)[0], mass)

    minimum, modes = hessian_modes(energy, xi0[0], metric, line)
    generator = torch.Generator().manual_seed(settings.seed)

    def model_of(modes: Modes, shape: Architecture) -> CanonicalTransformation:
        layers, latent = build_layers(periods, modes, kT, shape, False, generator)
        model = CanonicalTransformation(layers, latent, mass, chart, strict, units).double()
        # Without momenta a frequency is only a scale of its coordinate, which the layers have.
        latent.requires_grad_(strict)
        return model

    if settings.linear_steps and len(line):
        linear = Architecture(couplings=0, splines=False)
        modes = _best_gaussian(model_of(modes, linear), modes, potential, settings)
    model = model_of(modes, settings)
    if settings.steps:
        objective = VariationalFreeEnergy(model, potential)
        columns = 2 * n_dim if strict else n_dim
        draws = max(1, settings.steps // 2)
        source = BaseDraws(columns, settings.whiten, settings.temper, draws)
        result = settings.trainer().fit(objective, source, resume=settings.resume)
        model = result.model
        assert isinstance(model, CanonicalTransformation)
        model.history, model.interrupted = result.history, result.interrupted
    _finish(model, None, generator)
    model._potential = potential
    return model


def _best_gaussian(
    model: CanonicalTransformation, modes: Modes, potential: Potential, settings: FitOptions
) -> Modes:
    """The linear map that minimises the bound on fixed draws, as modes."""
    columns = model.n_dim * (2 if model.strict else 1)
    generator = torch.Generator().manual_seed(settings.seed)
    count = max(settings.linear_draws, 8 * columns)
    z = base_draws(count, columns, generator)
    heat = torch.full((len(z),), settings.temper, dtype=z.dtype)
    trainer = Trainer(
        steps=settings.linear_steps,
        batch_size=len(z),
        lr=1.0,
        ema=0.0,
        decay="constant",
        update="lbfgs",
        device=settings.device,
        dtype="float64",
        progress=False,
    )
    objective = VariationalFreeEnergy(model, potential, path=False)
    best = trainer.fit(objective, _Fixed((z, heat))).model.cpu()
    assert isinstance(best, CanonicalTransformation)
    scale, last = best.layers[0], best.layers[-1]
    assert isinstance(last, Linear)
    spread = scale.log_scale.exp().detach()
    basis = spread[:, None] * last.basis.detach()
    offset = last.center.detach() + last.basis.detach() @ best.latent.center.detach()
    center = scale.center.detach() + spread * offset
    return Modes(center, basis, best.latent.log_omega.detach().exp())


class _Fixed:
    """A source of one batch."""

    def __init__(self, batch: tuple[Tensor, ...]) -> None:
        self.batch = batch

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return self.batch


def _finish(model: CanonicalTransformation, xi: Tensor | None, generator: torch.Generator) -> None:
    """Order the modes, after turning them into natural ones where momenta are thermal."""
    model.requires_grad_(True).eval()
    if not len(model.latent.oscillators):
        return
    if model.strict:
        make_ascending(model)
        return
    with torch.no_grad():
        if xi is None:
            z = base_draws(_MEASURED, model.n_dim, generator).to(model.mass)
            Q = model.latent.coordinates(z)
        else:
            Q = model.from_chart(xi.to(model.mass))[0]
        make_natural(model, Q)


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


def start_of(start: Tensor | None, n_dim: int, chart: Chart | None) -> Float[Tensor, "1 dim"]:
    """Chart coordinates of a start, (1, n) in float64.

    Raises:
        ValueError: it is not n finite numbers.
    """
    if start is None:
        return torch.zeros(1, n_dim, dtype=torch.float64)
    point = torch.as_tensor(start, dtype=torch.float64).detach().cpu()
    if point.shape != (n_dim,) or not bool(torch.isfinite(point).all()):
        raise ValueError(f"start must be {n_dim} finite numbers; got {point}")
    return point[None] if chart is None else chart(point[None])[0]
