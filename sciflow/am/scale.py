"""Units of the data, in which a network sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sciflow.errors import DataError
from sciflow.train import Snapshots


@dataclass(frozen=True)
class Scale:
    """Units of the data, in which the network sees them.

    Positions are ``(x - center) / length`` and times ``(t - start) / duration``: one length for
    all directions, because the kinetic energy weighs them equally.
    """

    center: tuple[float, ...]
    length: float
    start: float
    duration: float

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.center)

    def inside(self, snapshots: Snapshots) -> Snapshots:
        """The snapshots in these units, with masses relative to the first."""
        center = torch.tensor(self.center, dtype=torch.float64)
        masses = snapshots.masses
        return Snapshots(
            [(x - center) / self.length for x in snapshots.samples],
            (snapshots.times - self.start) / self.duration,
            None if masses is None else masses / masses[0],
        )


def scale_of(snapshots: Snapshots) -> Scale:
    """Units in which the snapshots have mean zero, unit mean variance and unit duration."""
    x = torch.cat(snapshots.samples)
    center = x.mean(0)
    length = float((x - center).square().mean().sqrt())
    if length == 0.0:
        raise DataError("all samples are the same point: there is nothing to transport")
    start, end = float(snapshots.times[0]), float(snapshots.times[-1])
    return Scale(tuple(center.tolist()), length, start, end - start)
