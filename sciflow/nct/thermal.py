"""Momenta in equilibrium: N(0, kT M), or N(0, kT G^-1) for the vibrations of a molecule."""

from __future__ import annotations

import math

import torch

from sciflow.nct.layers import ChartMap
from sciflow.shapes import Float, Tensor
from sciflow.systems.charts import Chart


def thermal_momenta(
    q: Float[Tensor, "batch *shape"],
    noise: Float[Tensor, "batch dim"],
    mass: Float[Tensor, "*shape"],
    kT: float,
    chart: Chart | None,
) -> Float[Tensor, "batch *shape"]:
    """Thermal momenta at ``q`` of standard normal numbers.

    A chart of fewer coordinates than the system has (a molecule's) gives momenta of vibration
    alone, p = B^T p_xi with p_xi ~ N(0, kT G^-1).
    """
    if chart is None or mass.numel() == chart.n_dim:
        return noise.reshape(q.shape) * (kT * mass).sqrt()
    factor = torch.linalg.cholesky(kT * torch.linalg.inv(chart.metric(q, mass)))
    p_xi = (factor @ noise[..., None]).squeeze(-1)
    return ChartMap(chart, mass).pulled(q, p_xi)


def log_thermal_density(
    q: Float[Tensor, "batch *shape"],
    p: Float[Tensor, "batch *shape"],
    mass: Float[Tensor, "*shape"],
    kT: float,
    chart: Chart | None,
) -> Float[Tensor, " batch"]:
    """Log of the density of thermal momenta at ``q``.

    In a molecular chart, where the density of q is that of the chart's aligned coordinates, the
    momenta carry the volume of the chart along: the sum of both is a density of (xi, p_xi).
    """
    if chart is None or mass.numel() == chart.n_dim:
        variance = kT * mass
        constant = (2 * math.pi * variance).log().sum()
        return -((p.square() / variance).flatten(1).sum(1) + constant) / 2
    metric = chart.metric(q, mass)
    _, p_xi = ChartMap(chart, mass).forward(q, p)
    energy = (p_xi[:, None, :] @ metric @ p_xi[..., None]).flatten() / 2
    half_log = torch.linalg.slogdet(metric).logabsdet / 2
    normal = chart.n_dim / 2 * math.log(2 * math.pi * kT)
    return half_log - chart(q)[1] - normal - energy / kT
