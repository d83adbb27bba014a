"""Charts: invertible coordinates in which a system is simpler than in the ones it is given in."""

from __future__ import annotations

from sciflow.systems.charts.chart import Chart
from sciflow.systems.charts.eckart import EckartFrame
from sciflow.systems.charts.internal import InternalCoordinates
from sciflow.systems.charts.zmatrix import ZMatrix, build_zmatrix

__all__ = ["Chart", "EckartFrame", "InternalCoordinates", "ZMatrix", "build_zmatrix"]
