"""The moving density of a quantum superposition, learned from samples of |psi|^2 alone.

Action matching is given exact samples at any time and finds the field of least kinetic energy
that moves them; fresh samples at the start are then moved along it and compared with fresh
samples at later times. The second case is a harmonic oscillator, in one dimension, where the
field is known exactly: it is the probability current over the density.

Launch:
    python examples/hydrogen.py --out runs/hydrogen                # twenty minutes on a core
    CUDA_VISIBLE_DEVICES= python examples/hydrogen.py              # on the CPU, beside a GPU
    torchrun --nproc_per_node=2 examples/hydrogen.py               # batches shared by two
    python examples/hydrogen.py --case oscillator --out runs/oscillator
    python examples/hydrogen.py --steps 300 --seeds 1 --samples 2000   # a quick look

The page to open is OUT/CASE.png; the numbers are in OUT/CASE.txt.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sciflow import am, integrate, plots
from sciflow.metrics import mmd
from sciflow.systems import HydrogenSuperposition, OscillatorSuperposition
from sciflow.train import Engine

# The paper's kernel is three times exp(-1e-4 |x - y|^2), and its figure the mean over ten times
# of |MMD^2| (Neklyudov et al., arXiv:2210.06662, section 5): 5.66e-4.
BANDWIDTH, FACTOR, PAPER = 1 / math.sqrt(2e-4), 3.0, 5.66e-4
N_TIMES = 10


@dataclass(frozen=True)
class Study:
    """Settings of the study."""

    case: Literal["hydrogen", "oscillator"] = "hydrogen"
    """Superposition of two states of hydrogen, or of the harmonic oscillator."""
    steps: int = 4000
    """Updates per fit."""
    width: int = 128
    """Width of the three hidden layers."""
    batch_size: int = 512
    """Samples per update."""
    lr: float = 2e-3
    """Learning rate."""
    seeds: int = 3
    """Number of fits."""
    samples: int = 20_000
    """Samples moved to each time, and fresh samples that they are compared with."""
    samples_paper: int = 5000
    """The same for the protocol of the paper."""
    out: Path = Path("runs/hydrogen")
    """Folder that is written."""


@dataclass(frozen=True)
class Case:
    """A system, the span of time in which it is followed, and the kernel of the comparison."""

    system: HydrogenSuperposition | OscillatorSuperposition
    end: float
    bandwidth: float
    factor: float

    def sample(self, t: float, n: int, seed: int) -> Tensor:
        """Exact samples (n, d) at one time."""
        generator = torch.Generator().manual_seed(seed)
        return self.system.sample(torch.full((n,), t, dtype=torch.float64), generator)

    def distance(self, x: Tensor, y: Tensor) -> float:
        """MMD^2, unbiased, with its sign."""
        return self.factor * mmd(x, y, [self.bandwidth])


CASES = {
    "hydrogen": Case(HydrogenSuperposition(), 14_000.0, BANDWIDTH, FACTOR),
    "oscillator": Case(OscillatorSuperposition(), 2 * math.pi, 0.5, 1.0),
}


@dataclass(frozen=True)
class Scores:
    """What is measured.

    Attributes:
        times: the times of comparison, (T,).
        model: MMD^2 of moved against fresh samples, (seeds, T).
        floor: MMD^2 of two sets of fresh samples, (T,).
        exact: MMD^2 of samples moved by the exact velocity, in the same steps, (T,).
        paper: mean over times of |MMD^2| to the trajectories of the same samples, the protocol of
            the paper, by seed; a perfect model does not score zero.
        paper_perfect: what it scores: the exact velocity in place of the model.
        velocity: relative error of E[grad f . v] for smooth functions f, against the current,
            by seed; in one dimension the relative error of v itself.
        kinetic: kinetic energy of the fitted field and of the exact velocity, means over time.
        seconds: CPU time of a fit.
    """

    times: Tensor
    model: Tensor
    floor: Tensor
    exact: Tensor
    paper: Tensor
    paper_perfect: float
    velocity: Tensor
    kinetic: tuple[float, float]
    seconds: float

    @property
    def excess(self) -> tuple[float, float]:
        """Mean of model minus floor, and its standard error from the spread over times.

        Seeds share the fresh samples of a time, so that only times count as independent.
        """
        gap = self.model.mean(0) - self.floor
        return float(gap.mean()), float(gap.std() / len(gap) ** 0.5)

    def table(self) -> str:
        """All of it as text."""
        mean, error = self.excess
        return "\n".join(
            [
                "MMD^2 to fresh samples, signed, mean over times and seeds",
                f"  moved by the model        {float(self.model.mean()):10.2e}",
                f"  floor, two fresh sets     {float(self.floor.mean()):10.2e}",
                f"  moved by the exact field  {float(self.exact.mean()):10.2e}",
                f"  model minus floor         {mean:10.2e} +- {error:.1e} (standard error)",
                "protocol of the paper, |MMD^2| to the trajectories of the same samples, biased",
                f"  moved by the model        {float(self.paper.mean()):10.2e}",
                f"  moved by the exact field  {self.paper_perfect:10.2e}",
                f"  figure of the paper       {PAPER:10.2e} (hydrogen)",
                f"velocity against the probability current {float(self.velocity.mean()):.4f}",
                f"kinetic energy: field {self.kinetic[0]:.4g}, current {self.kinetic[1]:.4g}",
                f"one fit: {self.seconds:.0f} s of CPU time",
            ]
        )


def fit(case: Case, study: Study, seed: int) -> am.ActionPotential:
    """Action matching from the exact sampler."""
    return am.fit_sampler(
        case.system.sample,
        0.0,
        case.end,
        steps=study.steps,
        width=study.width,
        batch_size=study.batch_size,
        lr=study.lr,
        seed=seed,
    ).cpu()


def velocity_error(case: Case, model: am.ActionPotential, n: int) -> tuple[float, float, float]:
    """Error of the velocity, and kinetic energies of the model and of the current.

    The current need not be a gradient, but every field that moves the density has the same
    ``E[grad f . v]`` for every f, the rate of E[f]. In one dimension this fixes v itself.
    """
    wrong = right = kinetic = kinetic_exact = 0.0
    for k in range(N_TIMES):
        t = case.end * (k + 0.5) / N_TIMES
        x = case.sample(t, n, 10_000 + k)
        v, exact = model.velocity(t, x), case.system.velocity(t, x)
        kinetic += float(0.5 * v.square().sum(1).mean()) / N_TIMES
        kinetic_exact += float(0.5 * exact.square().sum(1).mean()) / N_TIMES
        if case.system.dim == 1:
            wrong += float((v - exact).square().mean())
            right += float(exact.square().mean())
            continue
        for slope in _slopes(x / model.scale.length):
            wrong += float((slope * (v - exact)).sum(1).mean()) ** 2
            right += float((slope * exact).sum(1).mean()) ** 2
    return (wrong / right) ** 0.5, kinetic, kinetic_exact


def _slopes(x: Tensor) -> list[Tensor]:
    """Gradients of x y, x^2 - y^2, x, y, x z^2 and of the same damped far away."""
    x = x.detach().requires_grad_()
    damp = torch.exp(-0.5 * x.square().sum(1))
    plain = [
        x[:, 0] * x[:, 1],
        x[:, 0] ** 2 - x[:, 1] ** 2,
        x[:, 0],
        x[:, 1],
        x[:, 0] * x[:, 2] ** 2,
    ]
    functions = plain + [f * damp for f in plain]
    return [torch.autograd.grad(f.sum(), x, retain_graph=True)[0] for f in functions]


def moved(case: Case, model: am.ActionPotential, n: int, seed: int) -> list[Tensor]:
    """Independent samples at each of the times, each set moved there from the start."""
    found = []
    for k in range(1, N_TIMES + 1):
        x = case.sample(0.0, n, seed + k)
        span = torch.tensor([0.0, case.end * k / N_TIMES], dtype=torch.float64)
        found.append(model.trajectories(x, span, n_steps=4 * k).x[-1])
    return found


def moved_exactly(case: Case, n: int, seed: int, n_steps: int) -> Tensor:
    """Samples (T, n, d) moved by the exact velocity, rk4."""
    t = torch.linspace(0.0, case.end, N_TIMES * n_steps + 1, dtype=torch.float64)
    x = case.sample(0.0, n, seed)
    return integrate(case.system.velocity, x, t, "rk4").y[n_steps::n_steps]


def measure(study: Study) -> tuple[Scores, am.ActionPotential]:
    """Fit, move, compare."""
    case = CASES[study.case]
    times = torch.arange(1, N_TIMES + 1, dtype=torch.float64) * case.end / N_TIMES
    fresh = [case.sample(float(t), study.samples, 1000 + k) for k, t in enumerate(times)]
    few = study.samples_paper
    bohm = moved_exactly(case, few, 5000, 100)
    start = case.sample(0.0, few, 5000)
    others = [case.sample(float(t), study.samples, 30_000 + k) for k, t in enumerate(times)]
    floor = [case.distance(x, y) for x, y in zip(others, fresh, strict=True)]
    model_rows, paper, velocities, kinetics = [], [], [], []
    began = time.process_time()
    models = [fit(case, study, seed) for seed in range(study.seeds)]
    seconds = (time.process_time() - began) / study.seeds
    for seed, model in enumerate(models):
        sets = moved(case, model, study.samples, 20_000 + 100 * seed)
        model_rows.append([case.distance(x, y) for x, y in zip(sets, fresh, strict=True)])
        path = model.trajectories(start, torch.cat([times.new_zeros(1), times]), n_steps=4).x[1:]
        gaps = [abs(case.distance(x, y)) for x, y in zip(path, bohm, strict=True)]
        paper.append(sum(gaps) / N_TIMES)
        error, kinetic, kinetic_exact = velocity_error(case, model, study.samples)
        velocities.append(error)
        kinetics.append((kinetic, kinetic_exact))
    exact = [case.distance(x, y) for x, y in zip(bohm, fresh, strict=True)]
    perfect = [abs(case.distance(x, x)) for x in bohm]
    kinetic_mean = torch.tensor(kinetics).mean(0).tolist()
    scores = Scores(
        times,
        torch.tensor(model_rows),
        torch.tensor(floor),
        torch.tensor(exact),
        torch.tensor(paper),
        sum(perfect) / N_TIMES,
        torch.tensor(velocities),
        (kinetic_mean[0], kinetic_mean[1]),
        seconds,
    )
    return scores, models[0]


def draw(study: Study, scores: Scores, model: am.ActionPotential) -> Figure:
    """Moved samples (dots) and the exact density (lines), and the distances in time."""
    case = CASES[study.case]
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    panels = figure.subplots(1, 4)
    times = [case.end * share for share in (0.0, 0.3, 0.7)]
    x = case.sample(0.0, 4000, 7)
    path = model.trajectories(x, torch.tensor(times, dtype=torch.float64), n_steps=30).x
    for ax, t, points in zip(panels, times, path, strict=False):
        _density(case, t, points, ax)
    last = panels[-1]
    plots.style.axes(last)
    share = scores.times / case.end
    for row in scores.model:
        last.plot(share, 1e4 * row, "o-", ms=3, lw=1, color=plots.style.CATEGORIES[0])
    last.lines[0].set_label("moved by the model, by seed")
    grey = plots.style.GREY
    last.plot(share, 1e4 * scores.floor, "s-", ms=3, lw=1, color=grey, label="fresh samples")
    last.axhline(0.0, color="black", lw=0.6)
    last.set_xlabel("share of the time span")
    last.set_ylabel(r"MMD$^2$ to other fresh samples ($10^{-4}$)")
    plots.style.legend_above(last, columns=1)
    return figure


def _density(case: Case, t: float, points: Tensor, ax: Axes) -> None:
    """Moved samples and the exact density, seen along z, or in one dimension."""
    plots.style.axes(ax)
    if case.system.dim == 1:
        grid = torch.linspace(-3.2, 3.2, 400, dtype=torch.float64)[:, None]
        bins = torch.linspace(-3.2, 3.2, 50).numpy()
        ax.hist(points[:, 0].numpy(), bins, density=True, color=plots.style.CATEGORIES[4])
        ax.plot(grid, case.system.density(t, grid), color="black", lw=1)
        ax.set_xlabel("x")
    else:
        axis = torch.linspace(-150, 150, 101, dtype=torch.float64)
        plane = torch.cartesian_prod(axis, axis)
        heights = torch.linspace(-250, 250, 41, dtype=torch.float64)
        total = sum(
            case.system.density(t, torch.cat([plane, torch.full((len(plane), 1), float(z))], 1))
            for z in heights
        )
        image = total.reshape(len(axis), len(axis)).T
        color = plots.style.CATEGORIES[1]
        ax.scatter(*points[:, :2].T, s=3, color=color, alpha=0.3, lw=0)
        levels = float(image.max()) * torch.tensor([0.02, 0.08, 0.25, 0.5, 0.8])
        ax.contour(axis, axis, image, levels.tolist(), colors="black", linewidths=0.9)
        ax.set(aspect="equal", xlim=(-150, 150), ylim=(-150, 150), xlabel="x (a.u.)")
    ax.set_title(f"t = {t / case.end:.1f} of the span", fontsize="medium")


def main(study: Study) -> Scores:
    scores, model = measure(study)
    if not Engine.start().is_main:
        return scores
    study.out.mkdir(parents=True, exist_ok=True)
    print(scores.table())
    (study.out / f"{study.case}.txt").write_text(scores.table() + "\n")
    draw(study, scores, model).savefig(study.out / f"{study.case}.png", dpi=150)
    print(f"figure: {study.out / (study.case + '.png')}")
    return scores


if __name__ == "__main__":
    main(tyro.cli(Study))
