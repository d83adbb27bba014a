"""Model files of any door."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from torch import nn

from sciflow.bridges.exporters import EXPORTERS
from sciflow.errors import DataError
from sciflow.train import load_metadata


def load_any(path: str | Path) -> nn.Module:
    """Load a model file whose kind has an exporter, by the door that wrote it.

    Raises:
        DataError: the file is missing, truncated, or of a kind without an exporter.
    """
    written = load_metadata(path).cls
    kinds = [kind for known in EXPORTERS for kind in (known, *known.__subclasses__())]
    doors = {f"{kind.__module__}.{kind.__qualname__}": kind.__module__ for kind in kinds}
    if written not in doors:
        raise DataError(
            f"{path} holds a {written.rpartition('.')[2]}; exporters are known for "
            f"{', '.join(kind.__name__ for kind in EXPORTERS)}"
        )
    door = ".".join(doors[written].split(".")[:2])
    return cast(nn.Module, import_module(door).load(path))
