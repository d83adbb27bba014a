"""Model files (safetensors with JSON metadata) and the state a run resumes from."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciflow.errors import DataError, require

_FORMAT = "sciflow-model"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a model file says about its weights.

    Attributes:
        cls: dotted name of the class of the model.
        config: what the class is built from, as JSON.
        units: unit of each quantity, by name.
        extra: whatever else was saved, as JSON.
        sciflow: version of sciflow that wrote the file.
        torch: version of torch that wrote the file.
    """

    cls: str
    config: dict[str, Any]
    units: dict[str, str]
    extra: dict[str, Any]
    sciflow: str
    torch: str


def save_model(
    path: str | Path,
    module: nn.Module,
    config: Any,
    units: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write the weights of ``module`` and what is needed to build it again, in one file.

    Args:
        path: file to write, by custom ``NAME.safetensors``; its folder is created.
        module: the model; its parameters and persistent buffers are saved.
        config: dataclass or mapping of JSON values from which the module is built.
        units: unit of each quantity, by name.
        extra: anything else to keep, as JSON values.

    Returns:
        The path written.

    Raises:
        TypeError: the config, units or extra hold a value that JSON cannot.
    """
    from sciflow import __version__

    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    kind = type(module)
    info = ModelInfo(
        cls=f"{kind.__module__}.{kind.__qualname__}",
        config=dict(config),
        units=dict(units or {}),
        extra=dict(extra or {}),
        sciflow=__version__,
        torch=torch.__version__,
    )
    for field, value in dataclasses.asdict(info).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{field} of {path} cannot be written as JSON: {error}") from error
    header = {"format": _FORMAT, "version": _VERSION, **dataclasses.asdict(info)}
    # safetensors refuses tensors that share memory (tied weights), so each is a copy.
    weights = {
        name: x.detach().to("cpu", copy=True).contiguous()
        for name, x in module.state_dict().items()
    }
    data = require("safetensors.torch").save(weights, metadata={"sciflow": json.dumps(header)})
    return write_atomic(Path(path), lambda file: file.write(data))


def load_metadata(path: str | Path) -> ModelInfo:
    """Read what a model file says about itself, without its weights.

    Raises:
        DataError: the file is missing, truncated, or not a model file of sciflow.
    """
    header = _read(Path(path), lambda file: file.metadata())
    try:
        content = json.loads((header or {})["sciflow"])
        if content["format"] != _FORMAT:
            raise KeyError(content["format"])
        version = content["version"]
        info = {field.name: content[field.name] for field in dataclasses.fields(ModelInfo)}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} was not written by sciflow: no metadata of a model") from error
    if version > _VERSION:
        raise DataError(
            f"{path} has model format {version}, this sciflow reads up to {_VERSION}; "
            f"it was written by sciflow {info['sciflow']}"
        )
    return ModelInfo(**info)


def load_weights(path: str | Path, module: nn.Module) -> None:
    """Load the weights of a model file into ``module``, on its device and in its dtype.

    Raises:
        DataError: the file is missing, truncated or foreign, or holds weights of other names
            or shapes than ``module``.
    """
    info = load_metadata(path)
    weights = _read(Path(path), lambda file: {name: file.get_tensor(name) for name in file.keys()})
    load_into(module, weights, f"{path} (a {info.cls})")


def load_model(path: str | Path, build: Callable[[dict[str, Any]], nn.Module]) -> nn.Module:
    """Build the module of a model file by ``build(config)`` and load its weights; eval mode.

    Raises:
        DataError: as `load_weights`.
    """
    module = build(load_metadata(path).config)
    load_weights(path, module)
    return module.eval()


def load_into(module: nn.Module, weights: Mapping[str, Any], where: str) -> None:
    """``module.load_state_dict``, refusing weights of other names or shapes.

    Raises:
        DataError: names the first few weights that do not fit, and ``where`` they came from.
    """
    own = module.state_dict()
    faults = [f"{name} is missing" for name in own if name not in weights]
    faults += [f"{name} is not in the module" for name in weights if name not in own]
    for name, x in own.items():
        saved = weights.get(name)
        if isinstance(x, torch.Tensor) and saved is not None and saved.shape != x.shape:
            faults.append(f"{name} has shape {tuple(saved.shape)}, expected {tuple(x.shape)}")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise DataError(
            f"the weights in {where} do not fit {type(module).__name__}: "
            f"{'; '.join(faults[:3])}{more}"
        )
    module.load_state_dict(weights)


def save_state(path: Path, state: dict[str, Any]) -> Path:
    """Write a resume state; a crash at any moment leaves the old file or the new one."""
    return write_atomic(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read a resume state.

    Raises:
        DataError: the file is missing, truncated, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises zip, pickle, EOF and runtime errors
        raise DataError(f"{path} is truncated or not a checkpoint: {error}") from error


def probe(folder: Path, size: int) -> None:
    """Create ``folder`` and reserve ``size`` bytes in it for a moment.

    Raises:
        OSError: the folder cannot be made or written, or its disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            for start in range(0, size, 1 << 20):
                file.write(bytes(min(1 << 20, size - start)))
        file.flush()


def write_atomic(path: Path, write: Callable[[Any], object]) -> Path:
    """Write a file next to ``path``, flush it to the disk and rename it over ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _read(path: Path, read: Callable[[Any], Any]) -> Any:
    """``read`` of an open safetensors file."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    safetensors = require("safetensors")
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as file:
            return read(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{path} is truncated or not a safetensors file: {error}") from error
