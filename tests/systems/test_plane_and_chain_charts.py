"""Polar and bond charts: round trip, volume and metric, by autograd and by hand."""

import math

import pytest
import torch

from sciflow.systems import HarmonicChain
from sciflow.systems.charts import BondChart, MidpointChart, PolarChart

CHARTS = [PolarChart((0.3, -0.2)), BondChart(5), MidpointChart(6)]


@pytest.mark.parametrize("chart", CHARTS, ids=["polar", "bonds", "midpoints"])
def test_round_trip_and_volume(chart, generator):
    q = torch.randn(50, chart.n_dim, generator=generator)
    xi, log_det = chart(q)
    back, log_back = chart.inverse(xi)
    torch.testing.assert_close(back, q, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(log_back, -log_det)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda x: chart(x[None])[0][0], q[i])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[i])


def test_polar_coordinates_and_their_metric():
    chart = PolarChart()
    xi, _ = chart(torch.tensor([[0.0, 2.0], [-3.0, -0.0], [-3.0, 0.0]]))
    expected = torch.tensor([[math.log(2), math.pi / 2], [math.log(3), -math.pi]])
    torch.testing.assert_close(xi, expected[[0, 1, 1]])
    q, mass = torch.tensor([[1.2, -0.7]]), torch.tensor([3.0, 3.0])
    # Kinetic energy m (r'^2 + r^2 theta'^2) / 2 with r' = r (ln r)': G = 1 / (m r^2) for both.
    expected = torch.eye(2)[None] / (3 * q.square().sum())
    torch.testing.assert_close(chart.metric(q, mass), expected, atol=1e-14, rtol=1e-14)


def test_bonds_and_their_metric():
    chart = BondChart(3)
    xi, _ = chart(torch.tensor([[1.0, 3.0, 2.5]]))
    torch.testing.assert_close(xi, torch.tensor([[1.0, 2.0, -0.5]]))
    metric = chart.metric(torch.randn(1, 3), torch.tensor([1.0, 2.0, 4.0]))[0]
    expected = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.5, -0.5], [0.0, -0.5, 0.75]])
    torch.testing.assert_close(metric, expected)
    with pytest.raises(ValueError, match="n_dim must be at least 1"):
        BondChart(0)


def test_midpoints_of_a_chain_of_equal_springs_are_independent():
    for n in (1, 5, 7):
        chart = MidpointChart(n)
        # covariance of the chain in the chart, by its exact Hessian
        spread = torch.linalg.inv(HarmonicChain(n).hessian)
        covariance = chart.matrix @ spread @ chart.matrix.T
        assert float((covariance - covariance.diag().diag()).abs().max()) < 1e-12
    with pytest.raises(ValueError, match="n_dim must be at least 1"):
        MidpointChart(0)
