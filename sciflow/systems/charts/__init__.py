"""Charts: invertible coordinates in which a system is simpler than in the ones it is given in."""

from __future__ import annotations

from sciflow.systems.charts.bonds import BondChart
from sciflow.systems.charts.chart import Chart
from sciflow.systems.charts.eckart import EckartFrame
from sciflow.systems.charts.internal import InternalCoordinates
from sciflow.systems.charts.midpoints import MidpointChart
from sciflow.systems.charts.polar import PolarChart
from sciflow.systems.charts.zmatrix import ZMatrix, build_zmatrix

__all__ = [
    "BondChart",
    "Chart",
    "EckartFrame",
    "InternalCoordinates",
    "MidpointChart",
    "PolarChart",
    "ZMatrix",
    "build_zmatrix",
]
