"""Model files: what a flow is built from, as JSON, beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import nn

from sciflow.cnf.base import BASES
from sciflow.cnf.fields import FIELDS
from sciflow.cnf.model import ContinuousFlow
from sciflow.errors import DataError
from sciflow.train import load_metadata, load_model, save_model


def save(flow: ContinuousFlow, path: str | Path, extra: dict[str, Any] | None = None) -> Path:
    """Write ``flow`` as safetensors; see `ContinuousFlow.save`."""
    config = {
        "field": _describe(flow.field, FIELDS, "field"),
        "base": _describe(flow.base, BASES, "base"),
        "trace": flow.trace,
        "periods": flow.periods,
        "solver": [flow.method, flow.rtol, flow.atol, flow.n_steps],
    }
    return save_model(path, flow, config, units={"x": "as the data"}, extra=extra)


def load(path: str | Path) -> ContinuousFlow:
    """Load a flow that ``save`` wrote.

    Raises:
        DataError: the file is missing, truncated or of another kind.
    """
    config = load_metadata(path).config
    if not {"field", "base", "trace", "periods", "solver"} <= set(config):
        raise DataError(f"{path} is not the file of a flow: it holds {sorted(config)}")
    return cast(ContinuousFlow, load_model(path, _build))


def _build(config: dict[str, Any]) -> ContinuousFlow:
    field, base = (
        table[config[part]["kind"]](**config[part]["config"])
        for part, table in (("field", FIELDS), ("base", BASES))
    )
    periods = {int(i): period for i, period in config["periods"].items()}
    flow = ContinuousFlow(field, base, config["trace"], periods=periods)  # type: ignore[arg-type]
    flow.set_solver(*config["solver"])
    return flow


def _describe(part: Any, table: dict[str, type[nn.Module]], name: str) -> dict[str, Any]:
    for kind, cls in table.items():
        if type(part) is cls:
            return {"kind": kind, "config": part.config}
    raise TypeError(
        f"{name} is a {type(part).__name__}, which a file cannot name; expected one of "
        f"{', '.join(cls.__name__ for cls in table.values())}"
    )
