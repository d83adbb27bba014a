"""Handwritten digits from noise: entropic action matching, samples drawn by its SDE.

The moving density starts as noise and ends as images of digits, in their leading principal
components. Entropic action matching sees draws of it, each at a time of its own, and learns the
drift of the stochastic equation that carries it; new images are drawn by solving that equation.

Launch:
    export SCIFLOW_DATA=folder-of-data
    python examples/mnist_action_matching.py --out runs/digits      # on the GPU where there is one
    CUDA_VISIBLE_DEVICES= python examples/mnist_action_matching.py  # on the CPU
    torchrun --nproc_per_node=2 examples/mnist_action_matching.py   # batches shared by two
    python examples/mnist_action_matching.py --steps 100         # a quick look

The page to open is OUT/digits.png; the numbers are in OUT/scores.txt. Scores are distances to
images that nothing was fitted to, in the space of the components, beside those of images fitted
(the floor) and of a Gaussian of the same mean and covariance (the baseline).
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from sciflow import am, plots
from sciflow.data import mnist
from sciflow.metrics import energy_distance, mmd
from sciflow.train import Engine


@dataclass(frozen=True)
class Study:
    """Settings of the study."""

    n_train: int = 8000
    """Images fitted, of 10,000; the others are held out."""
    components: int = 40
    """Principal components."""
    sigma: float = 0.5
    """Noise of the SDE, in units of the spread of a component over the span of time."""
    residue: float = 0.15
    """Noise left on the images at the end, in the same units."""
    steps: int = 1500
    """Updates."""
    width: int = 192
    """Width of the three hidden layers."""
    batch_size: int = 256
    """Draws per update."""
    lr: float = 1e-3
    """Learning rate."""
    seed: int = 0
    """Seed of the split, the fit and the samples."""
    out: Path = Path("runs/digits")
    """Folder that is written."""


class Components:
    """Principal components of images, in units of their root mean square."""

    def __init__(self, images: Tensor, n: int) -> None:
        x = images.flatten(1).double() / 255
        self.mean = x.mean(0)
        _, _, v = torch.linalg.svd(x - self.mean, full_matrices=False)
        self.axes = v[:n].T
        scores = (x - self.mean) @ self.axes
        self.unit = float(scores.square().mean().sqrt())
        self.share = float(scores.square().sum() / (x - self.mean).square().sum())

    def encode(self, images: Tensor) -> Tensor:
        """Components (N, n) of images (N, 28, 28) in bytes."""
        return (images.flatten(1).double() / 255 - self.mean) @ self.axes / self.unit

    def decode(self, z: Tensor) -> Tensor:
        """Images (N, 28, 28) in bytes."""
        x = self.mean + self.unit * z @ self.axes.T
        return (255 * x.clamp(0, 1)).byte().reshape(*z.shape[:-1], 28, 28)


class Denoising:
    """Draws of ``q_t``: a mixture of noise and images, from all of one to almost all the other."""

    def __init__(self, images: Tensor, residue: float) -> None:
        self.images, self.residue = images, residue

    def __call__(self, t: Tensor, generator: torch.Generator) -> Tensor:
        """One draw at each of the times t in [0, 1]."""
        row = torch.randint(len(self.images), (len(t),), generator=generator)
        shape = (len(t), self.images.shape[1])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        spread = ((1 - t).square() + (self.residue * t).square()).sqrt()
        return t[:, None] * self.images[row] + spread[:, None] * noise


def frechet(x: Tensor, y: Tensor) -> float:
    """Squared Frechet distance of the Gaussians with the moments of x and y."""
    a, b = x.T.cov(), y.T.cov()
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * cross)


def nearest(x: Tensor, y: Tensor) -> float:
    """Median distance from points of x to the nearest point of y."""
    return float(torch.cdist(x, y).min(1).values.median())


def scores(sets: dict[str, Tensor], held: Tensor, train: Tensor, bandwidth: float) -> str:
    """A row for each set of samples, compared with the held-out ones."""
    lines = [f"{'':<34}{'energy':>9}{'MMD^2':>10}{'Frechet':>9}{'nearest fitted':>16}"]
    for name, x in sets.items():
        figures = (energy_distance(x, held), mmd(x, held, [bandwidth]), frechet(x, held))
        row = "".join(
            f"{value:{size}.4f}" for value, size in zip(figures, (9, 10, 9), strict=True)
        )
        lines.append(f"{name:<34}{row}{nearest(x, train):16.3f}")
    lines.append(f"{'held-out images':<34}{'':28}{nearest(held, train):16.3f}")
    return "\n".join(lines)


def main(study: Study) -> str:
    images, _ = mnist("test")
    generator = torch.Generator().manual_seed(study.seed)
    order = torch.randperm(len(images), generator=generator)
    fitted, kept = images[order[: study.n_train]], images[order[study.n_train :]]
    components = Components(fitted, study.components)
    train, held = components.encode(fitted), components.encode(kept)
    source = Denoising(train, study.residue)

    began = time.process_time()
    model = am.fit_sampler(
        source,
        0.0,
        1.0,
        "entropic",
        sigma=study.sigma,
        # The end, where the drift is steepest, counts less than the middle, but not for nothing.
        weight=lambda t: 1.05 - t,
        steps=study.steps,
        width=study.width,
        batch_size=study.batch_size,
        lr=study.lr,
        seed=study.seed,
    ).cpu()
    seconds = time.process_time() - began

    n = len(held)
    start = torch.randn(n, study.components, generator=generator, dtype=torch.float64)
    times = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    path = model.trajectories(start, times, n_steps=32, seed=study.seed).x
    end = torch.ones(n, dtype=torch.float64)
    root = torch.linalg.cholesky(train.T.cov())
    noise = torch.randn(n, study.components, generator=generator, dtype=torch.float64)
    sets = {
        "images fitted (floor)": train[:n],
        "the same with the noise of the end": source(end, generator),
        "samples of the SDE": path[-1],
        "Gaussian of the images fitted": train.mean(0) + noise @ root.T,
        "noise they start from": start,
    }
    median = torch.pdist(held[:1000]).median()
    text = "\n".join(
        [
            f"{study.components} components hold {components.share:.1%} of the variance",
            scores(sets, held, train, float(median) / 2),
            f"fit: {seconds:.0f} s of CPU time",
        ]
    )
    if not Engine.start().is_main:
        return text
    print(text)
    study.out.mkdir(parents=True, exist_ok=True)
    (study.out / "scores.txt").write_text(text + "\n")
    model.save(study.out / "model.safetensors")
    draw(components, path, held, sets["Gaussian of the images fitted"]).savefig(
        study.out / "digits.png", dpi=150
    )
    print(f"figure: {study.out / 'digits.png'}")
    return text


def draw(components: Components, path: Tensor, held: Tensor, gauss: Tensor) -> Figure:
    """Images on their way, samples, the Gaussian and held-out images."""
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.9, 3.5))
    way = components.decode(path[:, :3]).transpose(0, 1)
    plots.image_grid(way, above.subplots()).set_title("from noise to a digit: t = 0 ... 1")
    panels = below.subplots(1, 3)
    titles = ("samples of the SDE", "Gaussian of the images", "held-out images")
    for ax, title, z in zip(panels, titles, (path[-1], gauss, held), strict=True):
        plots.image_grid(components.decode(z[8:56]).reshape(6, 8, 28, 28), ax).set_title(title)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Study))
