"""Effective sample size against its definition."""

import math

import numpy as np
import pytest
import torch

from sciflow.metrics import ess


def test_definition(generator):
    weights = torch.rand(50, generator=generator)
    expected = (weights.sum() ** 2 / weights.square().sum()).item()
    assert ess(weights.log()).item() == pytest.approx(expected, rel=1e-12)
    # Normalisation does not matter, even where the weights themselves would overflow.
    for shift in (-1e4, 1e4):
        assert ess(weights.log() + shift).item() == pytest.approx(expected, rel=1e-9)
    assert ess(weights.log().cpu().numpy()).item() == pytest.approx(expected, rel=1e-12)


def test_bounds():
    assert ess(torch.zeros(7)).item() == pytest.approx(7)
    assert ess(torch.tensor([0.0, -1e5, -math.inf])).item() == pytest.approx(1)
    assert ess(torch.tensor([3.0, 3.0, -math.inf])).item() == pytest.approx(2)


def test_rows(generator):
    weights = torch.randn(4, 3, 20, generator=generator)
    values = ess(weights)
    assert values.shape == (4, 3) and values.dtype == torch.float64
    assert values[2, 1] == ess(weights[2, 1])
    assert ess(weights.float()).dtype == torch.float64


def test_refused():
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="log_weights has entries that are nan or plus"):
            ess(torch.tensor([0.0, bad]))
    with pytest.raises(ValueError, match="no weight is positive"):
        ess(torch.tensor([[0.0, 0.0], [-math.inf, -math.inf]]))
    for empty in (torch.zeros(()), np.zeros((2, 0))):
        with pytest.raises(ValueError, match="log_weights has shape"):
            ess(empty)
