"""Model files: what a model is built from, as JSON, beside its weights."""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from sciflow.nct.latent import Latent
from sciflow.nct.layers import LAYERS
from sciflow.nct.model import CanonicalTransformation
from sciflow.systems import Molecule
from sciflow.systems.charts import Chart
from sciflow.train import load_model, save_model


def save(
    model: CanonicalTransformation, path: str | Path, extra: dict[str, Any] | None = None
) -> Path:
    """Write ``model`` as safetensors; see `CanonicalTransformation.save`."""
    chart = None
    if model.chart is not None:
        kind = type(model.chart)
        chart = [f"{kind.__module__}:{kind.__qualname__}", getattr(model.chart, "config", None)]
    config = {
        "layers": [[type(layer).__name__, _plain(layer.config)] for layer in model.layers],
        "periods": _plain(model.latent.periods),
        "kT": model.kT,
        "shape": list(model.mass.shape),
        "chart": chart,
        "strict": model.strict,
        "units": model.units,
        "dtype": str(model.mass.dtype).removeprefix("torch."),
        "molecule": None if model.molecule is None else asdict(model.molecule),
    }
    unit = {"q": "nm", "p": "dalton nm/ps", "frequencies": "rad/ps", "kT": "kJ/mol"}
    return save_model(path, model, config, unit if model.units == "md" else {}, extra)


def load(path: str | Path, chart: Chart | None = None) -> CanonicalTransformation:
    """Load a model that ``save`` wrote.

    Args:
        path: the file.
        chart: the chart of the fit, where it is one of the user's own.

    Raises:
        DataError: the file is missing, truncated or of another kind.
        ValueError: it needs a chart that is not given.
    """
    model = load_model(path, lambda config: _build(config, chart))
    assert isinstance(model, CanonicalTransformation)
    return model


def _build(config: dict[str, Any], chart: Chart | None) -> CanonicalTransformation:
    if config["chart"] is not None and chart is None:
        module, _, name = config["chart"][0].partition(":")
        if not module.startswith("sciflow.") or config["chart"][1] is None:
            raise ValueError(f"this model has the chart {name}: give it as chart=")
        chart = getattr(import_module(module), name)(**config["chart"][1])
    layers = [LAYERS[name](**_unplain(options)) for name, options in config["layers"]]
    latent = Latent(_unplain(config)["periods"], config["kT"])
    mass = torch.ones(config["shape"])
    model = CanonicalTransformation(layers, latent, mass, chart, config["strict"], config["units"])
    if (parts := config.get("molecule")) is not None:
        bonds = tuple((a, b) for a, b in parts.pop("bonds"))
        model.molecule = Molecule(
            **{name: tuple(part) for name, part in parts.items()}, bonds=bonds
        )
    return model.double() if config["dtype"] == "float64" else model.float()


def _unplain(config: dict[str, Any]) -> dict[str, Any]:
    """Periods with infinity in the place of None."""
    out = dict(config)
    if "periods" in out:
        out["periods"] = [math.inf if period is None else period for period in out["periods"]]
    if "period" in out and out["period"] is None:
        out["period"] = math.inf
    return out


def _plain(value: Any) -> Any:
    """JSON has no infinity: a missing period is None there."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if value == math.inf else value
