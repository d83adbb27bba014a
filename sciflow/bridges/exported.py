"""Exported models, loaded: checked files, and maps that are called with tensors."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sciflow.bridges.metadata import File, MapRecord, Metadata, digest, read
from sciflow.errors import DataError
from sciflow.shapes import Tensor

_log = logging.getLogger(__name__)


class ExportedMap:
    """A map of an exported model: tensors (B, ...) in, tensors (B, ...) out.

    Attributes:
        record: shapes and files.
        compiled: whether it runs by its AOTInductor package.
    """

    def __init__(
        self, record: MapRecord, metadata: Metadata, run: Callable[..., Any], compiled: bool
    ) -> None:
        self.record, self.compiled = record, compiled
        #: The map without a check of its inputs, which have its device and dtype.
        self.unchecked = run
        self._dtype = getattr(torch, metadata.dtype)
        self._device = torch.device(metadata.device)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the order of ``record.outputs``.

        Raises:
            ValueError: the inputs are not those of ``record.inputs``.
        """
        if len(inputs) != len(self.record.inputs):
            raise ValueError(f"expected {', '.join(self.record.inputs)}; got {len(inputs)} inputs")
        placed = []
        for (name, shape), x in zip(self.record.inputs.items(), inputs, strict=True):
            if list(x.shape[1:]) != shape or x.ndim == 0:
                expected = ", ".join(map(str, ["B", *shape]))
                raise ValueError(f"{name} has shape {tuple(x.shape)}; expected ({expected})")
            placed.append(x.detach().to(self._device, self._dtype))
        with torch.no_grad():
            return tuple(self.unchecked(*placed))


class Exported:
    """An exported model.

    Args:
        folder: what `sciflow.bridges.export.export` wrote.

    Raises:
        DataError: the folder holds no exported model.

    Example:
        >>> model = Exported("exported/")  # doctest: +SKIP
        >>> energy, forces = model["energy"](positions)  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.metadata = read(self.folder)
        self._loaded: dict[str, ExportedMap] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.metadata.maps

    def __getitem__(self, name: str) -> ExportedMap:
        """A map; by its package where that is of this machine and torch, else by its program.

        Raises:
            DataError: there is no such map, or its file is missing or damaged.
        """
        if name not in self.metadata.maps:
            raise DataError(
                f"{self.folder} has no map {name!r}; it has {', '.join(self.metadata.maps)}: "
                "sciflow export --maps chooses them"
            )
        if name not in self._loaded:
            self._loaded[name] = self._load(self.metadata.maps[name])
        return self._loaded[name]

    def _load(self, record: MapRecord) -> ExportedMap:
        here = (torch.__version__, platform.machine())
        if record.package is not None and here == (self.metadata.torch, self.metadata.machine):
            path = self._checked(record.package)
            model = torch._inductor.aoti_load_package(str(path))
            # Inputs and outputs are flat tuples of tensors.
            run = lambda *inputs: model.loader.run(list(inputs))
            return ExportedMap(record, self.metadata, run, True)
        if record.package is not None:
            _log.warning(
                "%s was compiled for torch %s on %s, this is torch %s on %s: the slower %s runs",
                record.package.name, self.metadata.torch, self.metadata.machine, *here,
                record.program.name,
            )  # fmt: skip
        program = torch.export.load(self._checked(record.program))
        return ExportedMap(record, self.metadata, program.module(), False)

    def _checked(self, file: File) -> Path:
        """The path of a file whose content is what was written: torch never sees another."""
        path = self.folder / file.name
        if path.parent != self.folder or not path.is_file():
            raise DataError(f"there is no file {path}")
        if digest(path) != file.sha256:
            raise DataError(f"{path} is damaged, or not the file that was exported (sha256)")
        return path
