"""Conceptual compression of handwritten digits: what a few slow modes of 784 still say.

Fits a neural canonical transformation to images of digits, rebuilds images that it has not seen
from their slowest modes, and asks a classifier of original images what they show. Principal
components, fitted to the same images, stand beside it.

Launch:
    export SCIFLOW_DATA=folder-of-data
    python examples/mnist_modes.py --out runs/mnist_modes     # on the GPU where there is one
    CUDA_VISIBLE_DEVICES= python examples/mnist_modes.py      # on the CPU
    torchrun --nproc_per_node=2 examples/mnist_modes.py       # each batch shared by two
    python examples/mnist_modes.py --steps 20 --n-train 1600 --copies 1       # a quick look

The pages to open are OUT/modes.png and OUT/digits.png; the numbers are in OUT/scores.txt.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor, nn

from sciflow import Trainer, nct, plots
from sciflow.data import Dequantised, Dequantiser, LabelledImages, bits_per_dim, mnist
from sciflow.nn import MLP
from sciflow.train import Engine, Loss, Samples


@dataclass(frozen=True)
class Study:
    """Settings of the study."""

    steps: int = 1000
    """Updates of the networks of the transformation."""
    couplings: int = 4
    """Number of its couplings."""
    width: int = 256
    """Width of their hidden layers."""
    lr: float = 1e-3
    """Its learning rate."""
    strict: bool = False
    """Fit phase space with the momenta of independent oscillators, whose frequencies are learned;
    otherwise the density of images alone is fitted, and modes are natural ones."""
    alpha: float = 1e-6
    """How far intensities are kept from 0 and 1 before their logit is taken."""
    n_train: int = 7000
    """Images fitted."""
    n_validation: int = 1000
    """Images that choose the best weights; the rest of the 10,000 is for the test."""
    copies: int = 4
    """Copies of each image fitted, each with noise of its own."""
    classifier_steps: int = 2000
    """Updates of the classifier."""
    kept: tuple[int, ...] = (5, 10, 15, 25, 35, 50, 100, 200, 784)
    """Numbers of modes kept."""
    seed: int = 0
    """Seed of the split, the noise and the fits."""
    out: Path = Path("runs/mnist_modes")
    """Folder that is written."""


@dataclass(frozen=True)
class Split:
    """Images for fitting, for choosing weights, and for the scores."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages

    @classmethod
    def draw(cls, study: Study) -> "Split":
        """By a seed."""
        images, labels = mnist("test")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(study.seed))
        ends = study.n_train, study.n_train + study.n_validation
        return cls(*(LabelledImages(images[i], labels[i]) for i in order.tensor_split(ends)))


class Classification(nn.Module):
    """Cross entropy of a network that sees pixels from 0 to 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: tuple[Tensor, Tensor]) -> Loss:
        """Loss of (pixels, labels)."""
        return Loss(nn.functional.cross_entropy(self.model(batch[0]), batch[1]))


@torch.no_grad()
def accuracy(classifier: nn.Module, images: LabelledImages) -> float:
    """Share of images that are named rightly."""
    guess = classifier(images.images.flatten(1).float() / 255).argmax(1)
    return float((guess == images.labels).double().mean())


def train_classifier(split: Split, study: Study) -> nn.Module:
    """A perceptron of two hidden layers, trained on original images."""
    network = MLP(784, 10, 256, 2, generator=torch.Generator().manual_seed(study.seed))
    trainer = Trainer(
        steps=study.classifier_steps,
        batch_size=128,
        update="adamw",
        weight_decay=1e-2,
        best_mode="max",
        seed=study.seed,
    )
    source = Samples(split.train.images.flatten(1) / 255, split.train.labels)
    found = trainer.fit(
        Classification(network), source, partial(accuracy, images=split.validation)
    )
    return found.model.eval().cpu()


class Coder:
    """A canonical transformation fitted to images, with the coordinates that it is fitted in."""

    def __init__(self, split: Split, study: Study, alpha: float | None, steps: int) -> None:
        generator = torch.Generator().manual_seed(study.seed)
        self.dequantise = Dequantiser(alpha=alpha)
        parts = [split.train.images] * study.copies + [split.validation.images]
        q = torch.cat([self.dequantise(part, generator).y for part in parts])
        self.test: Dequantised = self.dequantise(split.test.images, generator)
        self.model = nct.fit_samples(
            q,
            strict=study.strict and steps > 0,
            validation=study.n_validation / len(q),  # the last ones
            coupling="affine",
            couplings=study.couplings,
            width=study.width,
            bins=4,
            batch_size=128,
            steps=steps,
            lr=study.lr,
            dtype="float32",
            seed=study.seed,
        )
        self.model = self.model.double().cpu()

    @torch.no_grad()
    def bits(self) -> tuple[float, float]:
        """Bits per pixel of the test images, and the standard error."""
        log_prob = torch.cat([self.model.log_prob(part) for part in self.test.y.split(1000)])
        bits = bits_per_dim(log_prob, self.test)
        return float(bits.mean()), float(bits.std()) / math.sqrt(len(bits))

    def rebuilt(self, n_modes: int, fill: Literal["mean", "draw"] = "mean") -> Tensor:
        """Bytes (N, 28, 28) of the test images from their slowest modes."""
        y = nct.compress(self.model, self.test.y, n_modes, fill)
        return self.dequantise.images(y).reshape(-1, 28, 28)


@dataclass(frozen=True)
class Scores:
    """What the study measures, all on the test images.

    Attributes:
        bits: bits per pixel and standard error, by model.
        full: accuracy of the classifier on the images themselves.
        kept: numbers of modes kept.
        accuracy: of the classifier on rebuilt images, by way of compression.
        seconds: CPU time of the fit.
    """

    bits: dict[str, tuple[float, float]]
    full: float
    kept: tuple[int, ...]
    accuracy: dict[str, list[float]]
    seconds: float

    def table(self) -> str:
        """All of it as text."""
        lines = ["bits per pixel of test images"]
        lines += [f"  {name:<26}{v:8.4f} +- {e:.4f}" for name, (v, e) in self.bits.items()]
        lines += [f"accuracy of the classifier on the images themselves: {self.full:.4f}"]
        lines += [f"{'share of it by modes kept':<28}" + "".join(f"{k:>7}" for k in self.kept)]
        for name, row in self.accuracy.items():
            lines.append(f"  {name:<26}" + "".join(f"{a / self.full:7.3f}" for a in row))
        return "\n".join([*lines, f"fit: {self.seconds:.0f} s of CPU time"])


def measure(study: Study) -> tuple[Scores, Coder, Coder, Split]:
    """Scores, the transformation, principal components of logits, and the images."""
    split = Split.draw(study)
    classifier = train_classifier(split, study)
    start = time.process_time()
    flow = Coder(split, study, study.alpha, study.steps)
    seconds = time.process_time() - start
    # The linear map alone is principal component analysis, and its density is a Gaussian.
    linear, pixels = Coder(split, study, study.alpha, 0), Coder(split, study, None, 0)
    labels = split.test.labels
    ways = {
        "slow modes": partial(flow.rebuilt, fill="mean"),
        "slow modes, others drawn": partial(flow.rebuilt, fill="draw"),
        "PCA of logits": linear.rebuilt,
        "PCA of pixels": pixels.rebuilt,
    }
    scores = Scores(
        bits={
            "transformation": flow.bits(),
            "Gaussian of logits": linear.bits(),
            "Gaussian of pixels": pixels.bits(),
        },
        full=accuracy(classifier, split.test),
        kept=study.kept,
        accuracy={
            name: [accuracy(classifier, LabelledImages(rebuilt(k), labels)) for k in study.kept]
            for name, rebuilt in ways.items()
        },
        seconds=seconds,
    )
    return scores, flow, linear, split


def draw_modes(scores: Scores, flow: Coder, linear: Coder) -> Figure:
    """Accuracy against modes kept, and the frequencies."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.style.axes(left)
    styles = ("o-", "o:", "s-", "^-")
    for i, (name, row) in enumerate(scores.accuracy.items()):
        color = plots.style.CATEGORIES[i]
        left.plot(scores.kept, row, styles[i], color=color, ms=4, lw=1.2, label=name)
    left.axhline(0.9 * scores.full, color=plots.style.GREY, lw=0.8)
    left.annotate("90 % of full", (scores.kept[-1], 0.9 * scores.full), ha="right", va="bottom")
    left.set(xscale="log", xlabel="modes kept", ylabel="accuracy of the classifier")
    left.set_xticks(scores.kept, [str(k) for k in scores.kept], minor=False)
    left.minorticks_off()
    left.legend(frameon=False, loc="lower right")
    plots.spectrum(flow.model.frequencies, right)
    number = torch.arange(1, flow.model.n_dim + 1)
    right.plot(number, linear.model.frequencies, color=plots.style.GREY, label="PCA of logits")
    ends = torch.cat([flow.model.frequencies, linear.model.frequencies]).sort().values[[0, -1]]
    limits = (0.7 * float(ends[0]), 1.5 * float(ends[1]))
    right.set(xscale="log", yscale="log", ylim=limits, ylabel="angular frequency")
    right.legend(frameon=False)
    return figure


def draw_digits(flow: Coder, split: Split, kept: tuple[int, ...]) -> Figure:
    """One test image of each digit rebuilt from few to all modes, and samples of the model."""
    rows = torch.stack([(split.test.labels == digit).nonzero()[0, 0] for digit in range(10)])
    chosen = [k for k in kept if k <= 200]
    parts = [flow.rebuilt(k)[rows] for k in chosen] + [split.test.images[rows]]
    figure = Figure(figsize=(9.5, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(10, 8))
    plots.image_grid(torch.stack(parts), left, rows=[*(str(k) for k in chosen), "image"])
    left.set_title("modes kept")
    drawn = flow.dequantise.images(flow.model.sample(72).q).reshape(9, 8, 28, 28)
    plots.image_grid(drawn, right).set_title("samples of the model")
    return figure


def main(study: Study) -> Scores:
    scores, flow, linear, split = measure(study)
    if not Engine.start().is_main:
        return scores
    study.out.mkdir(parents=True, exist_ok=True)
    print(scores.table())
    (study.out / "scores.txt").write_text(scores.table() + "\n")
    flow.model.save(study.out / "model.safetensors")
    draw_modes(scores, flow, linear).savefig(study.out / "modes.png", dpi=150)
    draw_digits(flow, split, study.kept).savefig(study.out / "digits.png", dpi=150)
    print(f"figures: {study.out / 'modes.png'}, {study.out / 'digits.png'}")
    return scores


if __name__ == "__main__":
    main(tyro.cli(Study))
