"""A solve with constant steps as a graph for programs without Python."""

import io

import pytest
import torch

import sciflow

TIMES = torch.tensor([0.0, 0.5, 1.0])


class Flow(torch.nn.Module):
    def __init__(self, method, inside=False):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
        )
        self.method, self.inside = method, inside

    def forward(self, y):
        t = torch.tensor([0.0, 1.0]) if self.inside else TIMES
        return sciflow.integrate(
            lambda t, y: torch.cos(t) * self.net(y), y, t, method=self.method, dt=0.1
        ).y


def test_a_fixed_grid_survives_export(unchecked):
    flow = Flow("rk4")
    batch = torch.export.Dim("batch", min=2, max=1000)
    exported = torch.export.export(flow, (torch.randn(4, 2),), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for n in (4, 7):
        y = torch.randn(n, 2)
        torch.testing.assert_close(again(y), flow(y), rtol=0, atol=1e-14)


def test_times_of_the_graph_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"under torch\.export t must be a constant"):
        torch.export.export(Flow("rk4", inside=True), (torch.randn(4, 2),))


class Pendulums(torch.nn.Module):
    def __init__(self, method):
        super().__init__()
        self.stiffness, self.method = torch.nn.Parameter(torch.tensor(2.0)), method

    def forward(self, q, p):
        pendulum = sciflow.Hamiltonian(lambda q: (self.stiffness * (1 - torch.cos(q))).sum(1))
        return sciflow.integrate(pendulum, (q, p), TIMES, method=self.method, dt=0.1).y


@pytest.mark.parametrize("method", ["leapfrog", "yoshida4"])
def test_hamiltonian_flow_survives_export(method, unchecked):
    """The forces, derivatives of the potential, are in the graph."""
    flow, batch = Pendulums(method), torch.export.Dim("batch", min=2, max=1000)
    example = (torch.randn(4, 3), torch.randn(4, 3))
    exported = torch.export.export(flow, example, dynamic_shapes=({0: batch}, {0: batch}))
    q, p = torch.randn(7, 3), torch.randn(7, 3)
    for got, expected in zip(exported.module()(q, p), flow(q, p), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)
