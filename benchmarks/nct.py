"""Canonical transformations: steps with momenta by one product per layer, against autograd.

The peer is the usual way to carry momenta through a flow: one pass of the flow for the
coordinates, and one automatic vector-Jacobian product through its inverse for the momenta. Both
run the same network (that of the ring in Li et al. 2020: 8 affine couplings with 2 hidden layers
of 128, batch 200) in the same process, in turns, and give the same numbers.
"""

import math

import torch

from benchmarks.harness import conditions, race
from sciflow.nct.latent import Latent
from sciflow.nct.layers import AffineCoupling
from sciflow.nct.model import CanonicalTransformation
from sciflow.systems import Ring

N_COUPLINGS, WIDTH, DEPTH, BATCH = 8, 128, 2, 200


def build(device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    periods = [math.inf] * 2
    layers = [
        AffineCoupling(periods, [i % 2], width=WIDTH, depth=DEPTH, generator=generator)
        for i in range(N_COUPLINGS)
    ]
    model = CanonicalTransformation(layers, Latent(periods, 1.0), torch.ones(2), strict=True)
    with torch.no_grad():
        for x in model.parameters():
            x.add_(0.02 * torch.randn(x.shape, generator=generator))
    return model.to(device, dtype)


def peer_physical(model, Q, P, training):
    """(q, p) of (Q, P) by a pass of the flow and autograd through the inverse."""
    with torch.no_grad() if not training else torch.enable_grad():
        q = model.coordinates_inverse(Q)[0]
    with torch.enable_grad():
        x = q if training else q.detach().requires_grad_()
        image = model.coordinates(x)[0]
        # p = (dF/dq)^T P
        (p,) = torch.autograd.grad(image, x, P, create_graph=training)
    return q, p


def run(device="cpu"):
    model, system = build(device), Ring()
    params = list(model.parameters())
    generator = torch.Generator(device).manual_seed(1)
    z, noise = torch.randn(2, BATCH, 2, generator=generator, device=device)

    def bound(q, p, Q, P):
        log_rho = model.latent.log_density(Q) + model.latent.log_density_momenta(P)
        return (log_rho + system.potential(q) + p.square().sum(1) / 2).mean()

    def latent():
        return model.latent.coordinates(z), model.latent.momenta(noise)

    def step(loss):
        for x in params:
            x.grad = None
        loss.backward()
        return loss

    def ours():
        Q, P = latent()
        return step(bound(*model.to_physical(Q, P), Q, P))

    def peer():
        Q, P = latent()
        Q = Q.requires_grad_() if Q.is_leaf else Q
        return step(bound(*peer_physical(model, Q, P, True), Q, P))

    def coordinates():
        Q = model.latent.coordinates(z)
        q, log_det = model.coordinates_inverse(Q)
        return step((model.latent.log_density(Q) - log_det + system.potential(q)).mean())

    def sample():
        with torch.no_grad():
            return model.to_physical(*latent())

    def peer_sample():
        with torch.no_grad():
            Q, P = latent()
        return peer_physical(model, Q, P, False)

    agree = float((ours() - peer()).detach().abs())
    assert agree < 1e-4, f"both ways must give one loss, but differ by {agree}"
    few = lambda f: lambda: [f() for _ in range(5)]
    training = {
        "sciflow, phase space": few(ours),
        "sciflow, coordinates only": few(coordinates),
        "flow pass and autograd through the inverse": few(peer),
    }
    last = "flow pass and autograd through the inverse"
    sampling = {"sciflow": few(sample), last: few(peer_sample)}
    return {
        "conditions": conditions(device),
        "settings": {"couplings": N_COUPLINGS, "width": WIDTH, "depth": DEPTH, "batch": BATCH},
        "tables": {
            "five training steps": race(training, device, rounds=40, first=last),
            "five batches of samples with momenta": race(sampling, device, rounds=40, first=last),
        },
    }
