"""What every section of the demonstration is given, and what they share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciflow.errors import require


@dataclass(frozen=True)
class Setting:
    """Folder, seed, and how much is to be done.

    Attributes:
        out: folder that is written.
        seed: of everything.
        progress: show progress bars.
        effort: factor of the updates of every fit.
    """

    out: Path
    seed: int = 0
    progress: bool = True
    effort: float = 1.0

    def steps(self, full: int) -> int:
        """Updates of a fit that has ``full`` of them."""
        return max(2, round(full * self.effort))

    @property
    def options(self) -> dict[str, Any]:
        """Options of every fit."""
        return {"seed": self.seed, "device": "cpu", "progress": self.progress}


@dataclass(frozen=True)
class Clock:
    """Seed and wall time, as the entries of a report show them."""

    seed: int
    began: float = field(default_factory=time.perf_counter)

    def stop(self) -> dict[str, Any]:
        """Seed and seconds since it was made."""
        return {"seed": self.seed, "seconds": time.perf_counter() - self.began}


def panels(n: int, width: float = 5.2) -> tuple[Any, Any]:
    """A figure of ``n`` panels that belongs to no window, and its axes."""
    figure = require("matplotlib.figure").Figure(figsize=(width * n, 4.2), layout="constrained")
    return figure, figure.subplots(1, n, squeeze=False)[0]
