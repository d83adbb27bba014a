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
# # Normal modes without diagonalisation
#
# A neural canonical transformation is a symplectic map of phase space to independent
# oscillators. Here its only input is the potential of a chain of masses and springs; what it
# finds is compared with what is known: frequencies $2 \sin(k\pi / (2n + 2))$, sine-shaped modes
# and the free energy. (Li, Dong, Zhang, Wang, Phys. Rev. X 10, 021020 (2020).)

# %%
import os

import matplotlib.pyplot as plt
import torch

from sciflow import nct, plots
from sciflow.systems import HarmonicChain, Phi4

FAST = os.environ.get("SCIFLOW_FAST") == "1"  # a short run, as in the tests
STEPS = 10 if FAST else 300
N = 8 if FAST else 32

# %% [markdown]
# ## A harmonic chain
#
# The linear map starts from the Hessian at the minimum; the networks around it start at the
# identity, and here have nothing to add. With `strict=True` momenta are those of independent
# oscillators, and the bound on the free energy is one of the whole phase space.
#
# In the plots below the learned frequencies lie on the exact ones, and the modes are standing
# waves: half a wave along the chain for the slowest, one half more for each next.

# %%
chain = HarmonicChain(N)
model = nct.fit_energy(chain.potential, N, strict=True, steps=STEPS)
estimate, exact = model.free_energy(10_000), chain.free_energy(1.0)
print(f"free energy: at most {estimate.bound:.6f}, exact {exact:.6f}")
print("largest relative error of a frequency:", end=" ")
print(f"{(model.frequencies / chain.frequencies - 1).abs().max():.1e}")

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
plots.spectrum(model.frequencies, left, exact=chain.frequencies)
plots.mode_shapes(nct.mode_shapes(model), right, exact=chain.modes)
plt.show()

# %% [markdown]
# ## Motion
#
# Oscillators move by sines and cosines, so the chain's motion is known at any time at once. One
# end is pulled; the wave runs along the chain and back.

# %%
q, p = torch.zeros(2, 1, N, dtype=torch.float64)
q[0, 0] = 1.0
t = torch.linspace(0, 3 * N, 200, dtype=torch.float64)
moved = nct.evolve(model, q, p, t)
_, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
wave = ax.imshow(
    moved.q[:, 0].T, aspect="auto", extent=(0, 3 * N, N, 0), cmap="RdBu", vmin=-0.5, vmax=0.5
)
plt.colorbar(wave, label="displacement", extend="both")
ax.set_xlabel("time")
ax.set_ylabel("site")
plt.show()

# %% [markdown]
# ## An anharmonic chain
#
# Quartic sites ($\phi^4$) have no normal modes. The linear map alone gives the best Gaussian; the
# networks close most of the gap that it leaves. The exact value is by the transfer-integral
# operator.

# %%
phi4 = Phi4(8)
exact = phi4.free_energy(1.0)
for steps in (0, STEPS):
    model = nct.fit_energy(phi4.potential, 8, steps=steps)
    estimate = model.free_energy(10_000)
    print(f"{steps:4d} steps: gap of coordinates {estimate.bound - exact:.5f} kT")
