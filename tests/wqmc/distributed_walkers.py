"""Started by the tests as ``python`` and as ``torchrun``: natural-gradient steps on given walkers.

Each process takes its share of the same walkers, so that the steps must come out the same; then a
whole fit, of which every process must hold the same parameters.
"""

import sys
from pathlib import Path

import torch

from sciflow import wqmc
from sciflow.train import Engine
from sciflow.train.kronecker import KroneckerFisher
from sciflow.train.natural import DampedFisher, Spring
from sciflow.wqmc.objective import GroundStateEnergy

folder = Path(sys.argv[1])
engine = Engine.start("cpu")
torch.set_default_dtype(torch.float64)
x = torch.randn(48, 2, 3, generator=torch.Generator().manual_seed(0))
found = {}
for name, update, metric in (
    ("spring", Spring(), "fisher-rao"),
    ("dense", DampedFisher(), "joint"),
    ("kronecker", KroneckerFisher(chunk=10), "wasserstein"),
):
    psi = wqmc.FermiNet(wqmc.Molecule("He"), 1, 4, 1).double()
    objective = GroundStateEnergy(psi, metric)
    for _ in range(2):
        loss = update.step(objective, engine.shard(x))
    found[name] = torch.cat([p.detach().flatten() for p in psi.parameters()])
    found[f"{name} energy"] = loss.value
result = wqmc.fit(
    "He", steps=3, batch_size=16, width=4, depth=1, determinants=1, burn_in=10, moves=2,
    evaluation_walkers=8, evaluation_batches=2, progress=False, device="cpu", out=folder / "run",
)  # fmt: skip
weights = torch.cat([p.detach().flatten() for p in result.wavefunction.parameters()])
found["fits"] = engine.gather(weights)
found["energies"] = engine.gather(result.energy)
if engine.is_main:
    torch.save(found, folder / "found.pt")
