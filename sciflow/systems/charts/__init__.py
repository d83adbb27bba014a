"""Charts: invertible coordinates in which a system is simpler than in the ones it is given in."""

from __future__ import annotations

from sciflow.systems.charts.bonds import BondChart
from sciflow.systems.charts.chart import Chart
from sciflow.systems.charts.midpoints import MidpointChart
from sciflow.systems.charts.polar import PolarChart

__all__ = ["BondChart", "Chart", "MidpointChart", "PolarChart"]
