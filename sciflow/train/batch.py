"""Batches of any structure, and data checked at the door."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sciflow.errors import DataError
from sciflow.shapes import Shaped, Tensor


def map_batch(f: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """``f`` of every tensor in a batch of tuples, named tuples, lists and dicts."""
    if isinstance(batch, Tensor):
        return f(batch)
    if isinstance(batch, Mapping):
        return {key: map_batch(f, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_batch(f, value) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_batch(f, value) for value in batch)
    return batch


def cast(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``x`` on ``device``; real floats become ``dtype``, complex ones its complex partner."""
    if x.is_floating_point():
        return x.to(device, dtype)
    return x.to(device, dtype.to_complex()) if x.is_complex() else x.to(device)


def to_tensor(value: Any, name: str, dtype: torch.dtype | None = None) -> Shaped[Tensor, "..."]:
    """``value`` as a tensor that is detached from any graph."""
    if isinstance(value, Tensor):
        return value.detach() if dtype is None else value.detach().to(dtype)
    if isinstance(value, Sequence) and any(isinstance(v, Tensor) for v in value):
        value = [v.detach().cpu().numpy() if isinstance(v, Tensor) else v for v in value]
    try:
        array = np.asarray(value)
        # torch cannot take the negative strides of a reversed array.
        return torch.as_tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not an array of numbers: {error}") from error


def require_finite(x: Shaped[Tensor, "..."], name: str) -> None:
    """Refuse NaN and infinity, naming the first one."""
    bad = ~torch.isfinite(x)
    if not bool(bad.any()):
        return
    index = tuple(bad.nonzero()[0].tolist())
    place = f"row {index[0]}"
    if len(index) == 2:
        place += f", column {index[1]}"
    elif len(index) > 2:
        place += f", index {index[1:]}"
    raise DataError(
        f"{name}: {x[index].item()} at {place} ({int(bad.sum())} of {x.numel()} values not finite)"
    )
