"""The fit to samples of coordinates, by maximum likelihood."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from sciflow.nct.build import Architecture, build_layers, sample_modes, start_circles
from sciflow.nct.model import CanonicalTransformation, Units
from sciflow.nct.molecules import DEFAULTS, frames_of, is_molecular
from sciflow.nct.objective import DensityOfSamples
from sciflow.nct.options import MEASURED, FitOptions, check_kT, check_mass, finish
from sciflow.shapes import Float, Tensor
from sciflow.systems.charts import Chart
from sciflow.systems.trajectories import Selection
from sciflow.train import Samples
from sciflow.train.batch import require_finite, to_tensor


def fit_samples(
    q: Any,
    mass: float | Sequence[float] | Tensor = 1.0,
    kT: float = 1.0,
    *,
    groups: Any = None,
    chart: Chart | None = None,
    strict: bool = False,
    angles: Literal["oscillator", "rotor"] = "oscillator",
    units: Units = "reduced",
    atoms: Selection = None,
    cuts: Mapping[str, float] | None = None,
    **options: Any,
) -> CanonicalTransformation:
    """Fit independent oscillators to equilibrium samples of coordinates, by maximum likelihood.

    Samples have no momenta here: in equilibrium they are N(0, M kT) whatever the potential, and
    those of a simulation often are not, by constraints or a centre of mass at rest.

    Args:
        q: samples (N, ...), or a list of trajectories of such; or frames of a molecule: one
            ``mdtraj.Trajectory``, a list of them, an iterator of chunks, or `Conformations`. A
            molecule is fitted in its internal coordinates, in MD units, with masses from its
            topology and the `DEFAULTS` of molecules.
        mass: one mass, or one for each coordinate; (atoms,) masses where q is (N, atoms, 3).
        kT: thermal energy; [kJ/mol] for a molecule, as `sciflow.units.kT` gives it.
        groups: (N,) labels of the trajectories that samples came from. Whole groups are set
            aside to choose the best weights; without groups the last samples are.
        chart: coordinates that the layers act on.
        strict: fit phase space with the momenta of independent oscillators, see `fit_energy`.
        angles: whether an angle of the chart is opened at its cut, where the system should not
            be, and becomes an oscillator, or stays a free rotor.
        units: "md" for nm, ps, dalton and kJ/mol.
        atoms: of a molecule: a selection of mdtraj, numbers or names; all where not given.
        cuts: of a molecule: angle [rad] at which a named torsion is cut, where it is never; the
            emptiest place where not given.
        **options: fields of `FitOptions`; those of the potential's fit are not used.

    Returns:
        The model in eval mode, with ``history``; ``eval/nll`` is of the samples set aside, in
        nats per sample, as a density of q.

    Raises:
        ValueError: fewer samples than coordinates, or masses or groups of another number.
        DataError: samples that are not finite.
    """
    molecule = None
    if is_molecular(q):
        if kT == 1.0:
            raise ValueError(
                "kT [kJ/mol] is needed for a molecule: sciflow.units.kT(300) at 300 K"
            )
        if isinstance(mass, float | int) and mass != 1.0:
            raise ValueError(
                f"mass is {mass}; expected one for each atom, or none: those of the topology"
            )
        given = None if isinstance(mass, float | int) else [float(m) for m in mass]
        frames = frames_of(q, atoms, given)
        q, molecule, groups = frames.positions, frames.molecule, frames.run
        chart = chart or frames.internal_coordinates(cuts)
        mass, units, options = frames.masses, "md", DEFAULTS | options
    elif atoms is not None or cuts is not None:
        raise ValueError("atoms and cuts are for trajectories of a molecule")
    settings = FitOptions(**options)
    settings.check_reading(strict)
    check_kT(kT)
    samples, labels = _trajectories(q, groups)
    shape = samples.shape[1:]
    mass = check_mass(mass, shape)
    chart = chart.double() if chart is not None else None
    # The trainer casts the model, and its chart with it, to its own type.
    geometry = copy.deepcopy(chart)
    if chart is None and len(shape) != 1:
        raise ValueError(
            f"q has shape {tuple(samples.shape)}; expected (N, n), or a chart for such samples"
        )
    n_dim = chart.n_dim if chart is not None else shape[0]
    if len(samples) < 2 * n_dim:
        raise ValueError(
            f"q has {len(samples)} samples of {n_dim} coordinates; expected at least {2 * n_dim}"
        )
    with torch.no_grad():
        xi, volume = (
            (samples, samples.new_zeros(len(samples))) if chart is None else chart(samples)
        )
    held = _held_out(labels, len(samples), settings)
    if not settings.steps or (labels is not None and len(labels.unique()) > 1):
        # The fit is the same in whatever order the samples come; of a single trajectory the order
        # says which samples are held out. One coordinate alone may have equal values, in files
        # of limited precision.
        order = xi.sum(1).argsort()
        samples, xi, volume, held = samples[order], xi[order], volume[order], held[order]
    periods = [math.inf] * n_dim if chart is None else chart.periods.tolist()
    line = torch.tensor([i for i, x in enumerate(periods) if math.isinf(x)], dtype=torch.long)
    metric, factors = _metrics(samples, mass, chart, strict)
    train = xi[~held]
    modes = sample_modes(train[:, line], metric[line][:, line], kT)
    generator = torch.Generator().manual_seed(settings.seed)
    layout = settings if settings.steps else Architecture(couplings=0, splines=False)
    layers, latent = build_layers(periods, modes, kT, layout, angles == "oscillator", generator)
    start_circles(layers, train)
    model = CanonicalTransformation(layers, latent, mass, chart, strict, units).double()
    model.molecule = molecule
    latent.requires_grad_(strict)
    if settings.steps:
        objective = DensityOfSamples(model)
        source = Samples(train) if factors is None else Samples(train, factors[~held])
        score = _Score(xi[held], volume[held])
        result = settings.trainer().fit(objective, source, score, resume=settings.resume)
        assert isinstance(result.model, CanonicalTransformation)
        model = result.model
        model.history, model.interrupted = result.history, result.interrupted
    if molecule is not None:
        # Training may be in single precision; the geometry and the modes are not.
        model = model.double()
        model.chart = geometry
    rows = torch.randperm(len(train), generator=generator)[: MEASURED // 2]
    finish(model, train[rows], generator)
    return model


class _Score:
    """Negative log-likelihood of samples set aside, as a density of q."""

    def __init__(self, xi: Tensor, volume: Tensor) -> None:
        self.xi, self.volume = xi, volume

    @torch.no_grad()
    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        assert isinstance(model, CanonicalTransformation)
        Q, log_det = model.from_chart(self.xi.to(model.mass))
        log_rho = model.latent.log_density(Q) + log_det + self.volume.to(Q)
        return {"nll": -float(log_rho.mean())}


def _trajectories(q: Any, groups: Any) -> tuple[Tensor, Tensor | None]:
    """All samples in float64, and the trajectory that each is of.

    Raises:
        ValueError: groups of another number.
        DataError: samples that are not finite numbers.
    """
    if isinstance(q, list | tuple):
        if groups is not None:
            raise ValueError("groups is not for a list of trajectories, which are the groups")
        parts = [to_tensor(part, f"q[{i}]", torch.float64) for i, part in enumerate(q)]
        groups = [i for i, part in enumerate(parts) for _ in range(len(part))]
        samples = torch.cat(parts)
    else:
        samples = to_tensor(q, "q", torch.float64)
    if samples.ndim < 2:
        raise ValueError(f"q has shape {tuple(samples.shape)}; expected (N, ...)")
    require_finite(samples, "q")
    if groups is None:
        return samples.cpu(), None
    labels = to_tensor(groups, "groups")
    if labels.shape != (len(samples),):
        raise ValueError(f"groups has shape {tuple(labels.shape)}; expected ({len(samples)},)")
    return samples.cpu(), labels.cpu()


def _held_out(labels: Tensor | None, n: int, settings: FitOptions) -> Tensor:
    """Which samples choose the best weights: whole trajectories, or the end of a single one.

    The linear map alone has no weights to choose from, and takes all samples.
    """
    held = torch.zeros(n, dtype=torch.bool)
    if not settings.steps:
        return held
    names = torch.zeros(0) if labels is None else labels.unique()
    if labels is None or len(names) < 2:
        held[-max(1, round(settings.validation * n)) :] = True
        return held
    count = min(max(1, round(settings.validation * len(names))), len(names) - 1)
    generator = torch.Generator().manual_seed(settings.seed)
    chosen = names[torch.randperm(len(names), generator=generator)[:count]]
    return torch.isin(labels, chosen)


def _metrics(
    q: Tensor, mass: Tensor, chart: Chart | None, strict: bool
) -> tuple[Float[Tensor, "dim dim"], Float[Tensor, "n dim dim"] | None]:
    """Mean inverse mass metric, and the Cholesky factors of its inverse for momenta if drawn."""
    if chart is None:
        return torch.diag(1 / mass), None
    with torch.no_grad():
        if not strict:
            rows = torch.linspace(0, len(q) - 1, min(len(q), MEASURED)).long().unique()
            return chart.metric(q[rows], mass).mean(0), None
        metric = torch.cat([chart.metric(part, mass) for part in q.split(MEASURED)])
        return metric.mean(0), torch.linalg.cholesky(torch.linalg.inv(metric))
