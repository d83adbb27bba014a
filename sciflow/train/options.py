"""What the settings of every fit share: the seed, the device, and the folder of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Settings that mean the same in every fit; the settings of a door are derived from them."""

    seed: int = 0
    """Seed of all randomness of the fit."""
    device: str = "auto"
    """Torch device: "auto", "cpu", "cuda"."""
    out: Path | str | None = None
    """Folder for logs and checkpoints; None writes nothing."""
    log: str | None = "csv"
    """Log in that folder: "csv" or "tensorboard"."""
    log_every: int = 10
    """Steps between rows of the history and of the log."""
    resume: bool = False
    """Continue from the checkpoint in that folder."""
    progress: bool = True
    """Show a progress bar."""

    @property
    def run_settings(self) -> dict[str, Any]:
        """These settings as arguments of a `Trainer`; ``resume`` is one of its ``fit``."""
        names = ("seed", "device", "out", "log", "log_every", "progress")
        return {name: getattr(self, name) for name in names}
