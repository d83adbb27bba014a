"""Total variation between histograms of energies, with the error that finite samples leave.

The distance of two finite samples of one distribution is not zero: every figure stands beside the
floor of two independent sets of chains, and has the standard error of the bootstrap, over samples
of a flow and over whole chains.
"""

from typing import Any

import torch

from sciflow.metrics import histogram_distance

N_BOOTSTRAP = 400


def compared(
    energy: torch.Tensor, weights: torch.Tensor, chains: torch.Tensor, edges: torch.Tensor
) -> dict[str, Any]:
    """Energies (n,) of samples with weights, beside those of chains (draws, chains)."""
    bins = torch.bucketize(energy.double(), edges, right=True)
    counts = chain_counts(chains, edges)

    def resampled(random: torch.Generator) -> torch.Tensor:
        often = torch.poisson(torch.ones_like(weights), generator=random) * weights
        return torch.zeros(len(edges) + 1, dtype=weights.dtype).index_add_(0, bins, often)

    return {
        "energy_tv": histogram_distance(energy, chains.flatten(), edges, weights),
        "+-": bootstrap_error(resampled, counts),
    }


def compared_chains(one: torch.Tensor, two: torch.Tensor, edges: torch.Tensor) -> dict[str, Any]:
    """Energies (draws, chains) of two independent sets of chains."""
    counts = chain_counts(one, edges)
    return {
        "energy_tv": histogram_distance(one.flatten(), two.flatten(), edges),
        "+-": bootstrap_error(
            lambda random: drawn_again(counts, random), chain_counts(two, edges)
        ),
    }


def bootstrap_error(resampled: Any, counts: torch.Tensor) -> float:
    """Spread of the distance over resamples of one side and of the chains of the other."""
    random = torch.Generator().manual_seed(0)
    values = []
    for _ in range(N_BOOTSTRAP):
        p, q = resampled(random), drawn_again(counts, random)
        values.append(0.5 * float((p / p.sum() - q / q.sum()).abs().sum()))
    return float(torch.tensor(values).std())


def chain_counts(energy: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Histogram of each chain, (chains, bins), with what lies below and above the edges."""
    bins = torch.bucketize(energy.double().contiguous(), edges, right=True)
    counts = torch.zeros(energy.shape[1], len(edges) + 1, dtype=torch.float64)
    return counts.scatter_add_(1, bins.T, torch.ones_like(bins.T, dtype=torch.float64))


def drawn_again(counts: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Sum of the histograms of as many chains, drawn with repetition."""
    rows = torch.randint(len(counts), (len(counts),), generator=random)
    return counts[rows].sum(0)
