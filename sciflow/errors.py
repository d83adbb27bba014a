"""Errors a user can meet, and the one way to import an optional package."""

from __future__ import annotations

from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


#: False while a function is traced for export: its tensors have no numbers to be checked.
numbers_known: ContextVar[bool] = ContextVar("numbers_known", default=True)


class SciflowError(Exception):
    """Base of all errors raised on purpose by sciflow."""


class DataError(SciflowError, ValueError):
    """The data given cannot be used; the message names the cell, column or key."""


class IntegrationError(SciflowError, RuntimeError):
    """A solve did not reach its final time.

    Attributes:
        solution: what was reached: last good state, statistics and per-sample status.
    """

    def __init__(self, message: str, solution: Any) -> None:
        super().__init__(message)
        self.solution = solution


class TrainingError(SciflowError, RuntimeError):
    """Training stopped, for instance on a loss that is not finite.

    Attributes:
        step: the step at which training stopped.
        checkpoint: the last good checkpoint, or None where none was written.
    """

    def __init__(self, message: str, step: int, checkpoint: Path | None = None) -> None:
        super().__init__(message)
        self.step = step
        self.checkpoint = checkpoint


class MissingPackageError(SciflowError, ImportError):
    """An optional package is not installed; the message says how to install it."""


def require(module: str, extra: str | None = None) -> ModuleType:
    """Import ``module`` where it is used, or say how to install it.

    Args:
        module: dotted name, for instance ``"anndata"``.
        extra: the extra of sciflow that holds it; None for a core dependency.

    Raises:
        MissingPackageError: the package is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        install = f'"sciflow[{extra}]"' if extra else package
        raise MissingPackageError(
            f"this needs the package {package!r}: pip install {install} ({error})"
        ) from error
