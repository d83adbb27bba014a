"""Several objectives of one flow at once, each with its own samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sciflow.train import Loss, Source


class Mixture(nn.Module):
    """Weighted sum of objectives that share a model; the batch is a dict with one of each.

    Args:
        objectives: by name; all have the same ``model``.
        weights: of each, by the same names.

    Raises:
        ValueError: the names differ, a weight is not positive, or the models are not one.
    """

    def __init__(self, objectives: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(objectives) != set(weights) or not objectives:
            raise ValueError(
                f"weights must have the names {sorted(objectives)}; got {sorted(weights)}"
            )
        if any(not weight > 0 for weight in weights.values()):
            raise ValueError(f"weights must be positive; got {dict(weights)}")
        models = [objective.model for objective in objectives.values()]
        if any(model is not models[0] for model in models):
            raise ValueError("all objectives of a mixture must have the same model")
        self.model = models[0]
        self.parts = nn.ModuleDict(objectives)
        self.weights = dict(weights)
        self.generator: torch.Generator | None = None

    def forward(self, batch: Mapping[str, Any]) -> Loss:
        """Weighted sum; the metrics are those of the parts, ``PART/METRIC``."""
        value = torch.zeros((), device=next(self.parameters()).device)
        metrics: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            part.generator = self.generator  # type: ignore[assignment]
            loss = part(batch[name])
            value = value + self.weights[name] * loss.value
            metrics |= {f"{name}/{key}": x for key, x in loss.metrics.items()}
        return Loss(value, metrics)


class Joint:
    """Source of a dict with a batch of each of several sources.

    Args:
        sources: by the names of the objectives.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)

    def placed(self, device: torch.device, dtype: torch.dtype) -> Joint:
        """The same sources with their data on a device, in ``dtype``."""
        placed = {
            name: source.placed(device, dtype) if hasattr(source, "placed") else source
            for name, source in self.sources.items()
        }
        return Joint(placed)

    def sample(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        """Draw ``n`` of each."""
        return {name: source.sample(n, generator) for name, source in self.sources.items()}
