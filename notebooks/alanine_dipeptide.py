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
# # Slow modes of alanine dipeptide
#
# A neural canonical transformation turns unordered frames of a molecule into independent
# oscillators: no lag time, no list of features. It comes with an exact density and a map back, so
# that each mode can be looked at as a movement of the atoms.
#
# The frames are 100 runs of 501 frames in water. Runs 0-89 are fitted, runs 90-99 are held out:
# frames of one run are correlated, so that a split by frames would flatter every method.
# `SCIFLOW_DATA` names the folder of the data; `SCIFLOW_FAST=1` makes everything short.

# %%
import math
import os

import matplotlib.pyplot as plt
import torch

from sciflow import nct, plots
from sciflow.data import alanine_dipeptide
from sciflow.metrics import between, free_energy_difference, free_energy_surface
from sciflow.nct.evaluate import Arc, score
from sciflow.systems import conformations
from sciflow.units import kT

fast = os.environ.get("SCIFLOW_FAST", "") == "1"
runs = alanine_dipeptide(range(90, 100) if fast else None)
frames = conformations(runs)
train, held_out = frames.split([8, 9] if fast else range(90, 100))
len(train), len(held_out)

# %% [markdown]
# ## The data
#
# Two torsions move slowly, phi and psi. The error of a free-energy difference is that of whole
# runs drawn again with replacement.

# %%
generator = torch.Generator().manual_seed(0)
phi, psi = train.torsions("phi", "psi").unbind(1)
right = between(phi, 0.0, 2.2)
for unit in ("kT", "kJ/mol", "kcal/mol"):
    print(
        free_energy_difference(~right, right, train.run, generator, unit=unit, temperature=300.0)
    )

# %% [markdown]
# ## The fit
#
# The molecule is described by bonds, angles and torsions, which its topology gives. 3N - 6 = 24
# coordinates have neither rotations nor translations in them.
#
# In the plots: on the left the loss of the batches, on the right -ln p of training runs set aside,
# by which the best weights are chosen. Both should level off.

# %%
options = {"steps": 40, "width": 16} if fast else {}
model = nct.fit_samples(train, kT=kT(300.0), **options)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained")
plots.history(model.history, left, ["loss"])
ax = plots.history(model.history, right, ["eval/nll"])

# %% [markdown]
# ## What it found
#
# The likelihood of frames it has not seen; what the slowest modes know of phi and psi; and free
# energies. PCA, TICA and Gaussian densities are fitted to the same training frames.

# %%
states = {"phi > 0": Arc("phi", 0.0, 2.2), "alpha": Arc("psi", -2.2, 1.0)}
scores = score(model, train, held_out, states, n_drawn=5_000 if fast else 200_000)
print(scores.table())

# %% [markdown]
# A frequency is a thermal width, not a rate: whether a mode is slow in time is for TICA to say.
#
# ## The modes
#
# Colour is the value of a mode; black points are structures along it, all other modes at rest.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.7), layout="constrained")
angles, modes = held_out.torsions("phi", "psi"), model.modes(held_out.positions)
for k, ax in enumerate(axes):
    path = nct.mode_trajectory(model, k, n=41)
    along = conformations(path).torsions("phi", "psi")
    plots.mode_on_torsions(angles, modes[:, k], ax, ["φ", "ψ"], k + 1, along)

# %% [markdown]
# `path.save_pdb("mode.pdb")` writes such structures for a viewer.
#
# ## The surface
#
# Samples of the model against the frames it was fitted to: the same basins, at the same depths
# within the noise of the frames.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.7), layout="constrained")
drawn = conformations(nct.sample_trajectory(model, 2_000 if fast else 50_000))
for ax, title, some in ((axes[0], "frames", train), (axes[1], "model", drawn)):
    surface = free_energy_surface(some.torsions("phi", "psi"), 45, periods=[2 * math.pi] * 2)
    plots.free_energy(surface, ax, ["φ", "ψ"], degrees=True, highest=8.0).set_title(title)
