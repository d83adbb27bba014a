"""Local energies by the forward Laplacian against nested autograd and torch.func; iterations.

All take turns in one process on the same walkers and the same network: beryllium, 256 walkers,
float32, a Psiformer of about 51 thousand parameters (width 70, 2 layers, 5 heads, 4 determinants).
"""

import torch

from benchmarks.harness import conditions, race, short
from sciflow.train.kronecker import KroneckerFisher
from sciflow.train.natural import Spring
from sciflow.wqmc import FermiNet, Molecule, Psiformer
from sciflow.wqmc.objective import GroundStateEnergy
from sciflow.wqmc.physics import Coulomb, local_energy, local_energy_gradient
from sciflow.wqmc.sampling import ElectronWalkers

WALKERS, ROUNDS = 256, 5


def kinetic_nested(psi, x):
    """Second derivatives one by one, by a reverse pass over the gradient."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(psi.log_psi(x).sum(), x, create_graph=True)
    flat, total = gradient.flatten(1), 0.0
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
        total = total + row.flatten(1)[:, i]
    return -0.5 * (total + flat.square().sum(1)).detach()


def kinetic_func(psi, x):
    """Forward over reverse by torch.func, all directions of all walkers in one call."""
    n = x[0].numel()

    def gradient(y):
        return torch.func.grad(lambda z: psi.log_psi(z.view_as(x)).sum())(y)

    def second(direction):
        flat = x.flatten(1)
        along, change = torch.func.jvp(gradient, (flat,), (direction.expand_as(flat),))
        return along, (change * direction).sum(1)

    along, rows = torch.func.vmap(second, out_dims=(None, 0))(torch.eye(n, device=x.device))
    return -0.5 * (rows.sum(0) + along.square().sum(1))


def walkers_of(psi, device):
    generator = torch.Generator(device).manual_seed(0)
    source = ElectronWalkers(psi, WALKERS, generator)
    for _ in range(10):
        source.sample(1, generator)
    return source, generator


def iterations(psi, device):
    """One update of each metric: moves, gradient, natural step."""
    found = {}
    for name, metric, update in (
        ("fisher-rao, spring", "fisher-rao", Spring()),
        ("fisher-rao, kronecker", "fisher-rao", KroneckerFisher()),
        ("wasserstein, kronecker", "wasserstein", KroneckerFisher()),
        ("joint, kronecker", "joint", KroneckerFisher()),
    ):
        own = type(psi)(psi.molecule, **psi.config).to(device, torch.float32)
        source, generator = walkers_of(own, device)
        objective = GroundStateEnergy(own, metric)

        def step(source=source, generator=generator, update=update, objective=objective):
            update.step(objective, source.sample(WALKERS, generator))

        found[name] = step
    return found


def run(device="cpu"):
    beryllium = Molecule("Be")
    psi = Psiformer(beryllium, 4, 70, 2, 5).to(device, torch.float32)
    x = walkers_of(psi, device)[0].x
    potential = Coulomb(beryllium)

    def ours():
        with torch.no_grad():
            return local_energy(psi.log_psi, potential, x).energy - potential(x)

    nested, func = (lambda f=f: f(psi, x) for f in (kinetic_nested, kinetic_func))
    truth = ours()
    for other in (nested(), func()):
        gap = float(((other - truth).abs() / (1 + truth.abs())).detach().median())
        assert gap < 1e-3, f"all must give one kinetic energy, but differ by {gap}"
    energies = {
        "forward Laplacian": ours,
        "nested autograd": nested,
        "torch.func, vmap of jvp of grad": func,
    }
    gradients = {
        "local energy": ours,
        "its gradient, by a reverse pass": lambda: local_energy_gradient(
            psi.log_psi, potential, x
        ),
    }
    small = iterations(FermiNet(beryllium), device)
    count = sum(p.numel() for p in psi.parameters())
    return {
        "conditions": conditions(device),
        "settings": {"walkers": WALKERS, "parameters": count},
        "tables": {
            title: {who: short(row, device) for who, row in race(them, device, ROUNDS).items()}
            for title, them in {
                f"local energy, Be, {count} parameters": energies,
                "third derivatives": gradients,
                "one iteration, Be, default FermiNet": small,
            }.items()
        },
    }
