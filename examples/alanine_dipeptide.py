"""Slow modes of alanine dipeptide from unordered frames, beside PCA and TICA.

Launch:
    export SCIFLOW_DATA=folder-of-data
    python examples/alanine_dipeptide.py out                        # on the GPU where there is one
    CUDA_VISIBLE_DEVICES= python examples/alanine_dipeptide.py out  # on the CPU
    torchrun --nproc_per_node=2 examples/alanine_dipeptide.py out   # batches shared by two

It trains on runs 0-89 of the data set `alanine-dipeptide` for less than a minute, scores runs
90-99, and writes figures, the model, and structures along the two slowest modes.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sciflow import nct, plots
from sciflow.data import alanine_dipeptide
from sciflow.metrics import free_energy_surface
from sciflow.nct.evaluate import Arc, score
from sciflow.systems import conformations
from sciflow.train import Engine
from sciflow.units import kT

STATES = {"phi > 0": Arc("phi", 0.0, 2.2), "alpha": Arc("psi", -2.2, 1.0)}


def main(out: Path, **options: Any) -> None:
    out.mkdir(parents=True, exist_ok=True)
    frames = conformations(alanine_dipeptide())
    train, held_out = frames.split(range(90, 100))
    start = time.process_time()
    model = nct.fit_samples(train, kT=kT(300.0), **options).cpu()
    seconds = time.process_time() - start
    if not Engine.start().is_main:
        return
    model.save(out / "model.safetensors")
    scores = score(model, train, held_out, STATES)
    text = f"{scores.table()}\ntraining: {seconds:.0f} s of CPU time\n"
    (out / "scores.txt").write_text(text)
    print(text)

    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7.5), layout="constrained")
    angles, names = held_out.torsions("phi", "psi"), ["φ", "ψ"]
    modes = model.modes(held_out.positions)
    for k in range(2):
        path = nct.mode_trajectory(model, k, n=41)
        path.save_pdb(str(out / f"mode-{k + 1}.pdb"))
        along = conformations(path).torsions("phi", "psi")
        plots.mode_on_torsions(angles, modes[:, k], axes[0, k], names, k + 1, along)
    sampled = conformations(nct.sample_trajectory(model, 50_000)).torsions("phi", "psi")
    whole = [2 * math.pi] * 2
    for ax, title, data in ((axes[1, 0], "runs 0-89", train.torsions("phi", "psi")),
                            (axes[1, 1], "model", sampled)):  # fmt: skip
        surface = free_energy_surface(data, 45, periods=whole)
        plots.free_energy(surface, ax, names, degrees=True, highest=8.0).set_title(title)
    figure.savefig(out / "alanine_dipeptide.png", dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/alanine-dipeptide"))
