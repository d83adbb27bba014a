"""Small, real versions of what sciflow does, each beside the value it should have.

``sciflow demo`` (or ``make demo``) needs no download. It writes ``metrics.json``, the figures and
one self-contained ``index.html``. Each section is a function of `Setting`, in `PARTS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sciflow.demo import atoms, cells, density, oscillators, superposition, turbulence
from sciflow.demo.setting import Setting
from sciflow.report import Report, Section

logger = logging.getLogger(__name__)

#: What the page shows, in this order: title and function.
PARTS: dict[str, Callable[[Setting], Section | None]] = {
    "oscillators": oscillators.ring,
    "density": density.moons,
    "turbulence": turbulence.decay,
    "action matching": superposition.oscillator,
    "optimal transport": cells.gaussians,
    "cells": cells.gene_network,
    "real cells": cells.embryoid_body,
    "ground state": atoms.helium,
}


def run(
    out: Path | str = "out", seed: int = 0, progress: bool = True, effort: float = 1.0
) -> Path:
    """Run the demonstration.

    Args:
        out: folder that is written.
        seed: seed of everything in it.
        progress: show progress bars.
        effort: factor of the updates of every fit; the verdicts are for 1.

    Returns:
        Path of the page.
    """
    setting = Setting(Path(out), seed, progress, effort)
    setting.out.mkdir(parents=True, exist_ok=True)  # fails before the work rather than after it
    sections = []
    for number, (title, part) in enumerate(PARTS.items(), 1):
        logger.info("%d/%d %s", number, len(PARTS), title)
        section = part(setting)
        if section is not None:
            sections.append(section)
    return Report("sciflow", tuple(sections)).write(out)
