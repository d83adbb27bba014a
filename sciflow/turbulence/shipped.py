"""The decays and the weights that come with the package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sciflow.turbulence.dataset import read_runs
from sciflow.turbulence.forecaster import Forecaster, load
from sciflow.turbulence.runs import DecayRun

_DATA = Path(__file__).parent / "data"
#: What each part of the decays is for; the first part of the names of its runs.
PURPOSES = ("train", "closure", "calibrate", "test", "beyond")


@lru_cache(maxsize=1)
def _all() -> tuple[DecayRun, ...]:
    return tuple(read_runs(_DATA / "decays.npz"))


def decays(*purposes: str) -> list[DecayRun]:
    """Decays that sciflow ships, made by ``python -m sciflow.turbulence.campaign``.

    Args:
        purposes: any of "train" (60 simulations at 64^3), "closure" (decays of the closure,
            Re_lambda from 2 to above 1000, resolved or not), "calibrate" (for the bands), "test"
            (unseen spectra in the range of the training) and "beyond" (a Reynolds number 1.7
            times larger, 96^3); none means all.

    Raises:
        ValueError: an unknown purpose.
    """
    for name in purposes:
        if name not in PURPOSES:
            raise ValueError(f"purposes must be of {', '.join(PURPOSES)}; got {name!r}")
    return [run for run in _all() if not purposes or run.name.partition("-")[0] in purposes]


def pretrained() -> Forecaster:
    """The forecaster of ``fit(decays("train", "closure"), decays("calibrate"), steps=3000, ...)``.

    With ``batch_size=960``, ``width=64`` and ``starts=16``, about 11 minutes of one core.
    """
    return load(_DATA / "pretrained.safetensors")
