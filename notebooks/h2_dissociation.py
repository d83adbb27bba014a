# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A bond that breaks
#
# Hartree-Fock puts both electrons of H$_2$ into one orbital, half of the time at the same atom:
# where the bond is long this is badly wrong. A neural wave function has no such prejudice. It is
# found by variational Monte Carlo, and its energy is an upper bound with an error bar.

# %%
import os

import matplotlib.pyplot as plt

from sciflow import plots, wqmc
from sciflow.errors import MissingPackageError, require

FAST = os.environ.get("SCIFLOW_FAST") == "1"  # a short run, as in the tests
LENGTHS = (1.4, 2.4) if FAST else (1.0, 1.2, 1.4, 1.7, 2.2, 3.0, 4.0)
SIZES = {"steps": 400, "progress": False}
if FAST:
    SIZES |= {"steps": 8, "batch_size": 64, "width": 8, "depth": 1, "burn_in": 50,
              "evaluation_walkers": 64, "evaluation_batches": 4}  # fmt: skip

# %% [markdown]
# ## The curve
#
# Each geometry begins with the wave function of the one before, and needs few updates.

# %%
molecules = [wqmc.Molecule("H2", [[0, 0, -r / 2], [0, 0, r / 2]]) for r in LENGTHS]
results = wqmc.curve(molecules, **SIZES)


# %% [markdown]
# Beside it, exact diagonalisation in a Gaussian basis (cc-pVQZ: 0.7 mHa too high at 1.4 bohr) and
# Hartree-Fock in the same basis. On the left the points follow the former to two free atoms, at
# -1 hartree, where Hartree-Fock goes astray; on the right each electron is at its own atom.


# %%
def diagonalised(length: float) -> tuple[float, float]:
    """Energies of full configuration interaction and of Hartree-Fock [hartree]."""
    gto, scf, fci = (require(f"pyscf.{part}", "qmc") for part in ("gto", "scf", "fci"))
    mole = gto.M(atom=f"H 0 0 0; H 0 0 {length}", unit="Bohr", basis="cc-pvqz", verbose=0)
    field = scf.RHF(mole).run()
    return fci.FCI(field).kernel()[0], field.e_tot


references = {}
try:
    exact, mean_field = zip(*map(diagonalised, LENGTHS), strict=True)
    references = {"FCI, cc-pVQZ": exact, "Hartree-Fock": mean_field}
except MissingPackageError as absent:
    print(absent)
for r, result in zip(LENGTHS, results, strict=True):
    print(f"{r:.1f} bohr: {result.energy:.5f} +- {result.error:.5f} hartree")

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
plots.dissociation(LENGTHS, results, references, left)
line = [0.1 * i - 4 for i in range(81)]
count = {"walkers": 64, "batches": 4} if FAST else {}
plots.electron_density(
    wqmc.density(results[-1].wavefunction, (line, [-0.25, 0.25], line), **count), right
)
plt.show()

# %% [markdown]
# ## Lithium hydride, its dipole and its forces
#
# The measured dipole is 5.88 debye, 2.31 e bohr, from hydrogen to lithium. At the minimum of the
# energy the forces vanish. They come with finite variance: the bare force of an electron at a
# nucleus has none.

# %%
hydride = wqmc.fit("LiH", **(SIZES if FAST else SIZES | {"steps": 1000}))
print(f"energy {hydride.energy:.5f} +- {hydride.error:.5f}, exact -8.07055 hartree")
found = hydride.observables(**count)
print("dipole along z [e bohr]:", *(f"{float(part[2]):.3f}" for part in found.dipole))
print("forces along z [hartree/bohr]:", found.forces.value[:, 2].tolist())

# %% [markdown]
# ## Beryllium: two metrics
#
# The usual gradient (Fisher-Rao) kills and copies walkers; that of Wasserstein moves them along
# the gradient of the local energy; joint takes the sum of both. The same start, the same
# optimiser. The plot has the excess over the exact energy, the mean of fifty steps; below the
# dashed line, 1 kcal/mol, the axis is linear, and noise takes over: 256 walkers that remember
# where they were for several steps. What tells the metrics apart are the energies and variances of
# the frozen wave functions, printed above the plot.

# %%
both = {"optimizer": "kronecker", "log_every": 1, **SIZES}
atoms = {metric: wqmc.fit("Be", metric, **both) for metric in ("fisher-rao", "joint")}
for metric, result in atoms.items():
    print(f"{metric}: {result.energy:.5f} +- {result.error:.5f}, variance {result.variance:.4f}")
plots.energy_trace({m: r.history for m, r in atoms.items()}, -14.667356, window=50)
plt.show()
