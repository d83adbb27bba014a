"""The three metrics on beryllium: same start, optimiser, walkers and schedule, 4000 updates.

A small FermiNet by the averaged Fisher matrix, which follows any gradient. Energies are those of
frozen parameters; "same seconds" gives every metric the CPU time that fisher-rao takes for all its
updates, and compares the variance of the local energy of the training walkers at that point.
``SEEDS`` and ``STEPS`` in the environment shorten it.
"""

import os
import statistics
import time
from typing import Any

from benchmarks.harness import conditions, seeds
from sciflow import wqmc

EXACT, STEPS = -14.667356, 4000
METRICS = ("fisher-rao", "wasserstein", "joint")
SETTINGS: dict[str, Any] = {
    "width": 16, "depth": 1, "determinants": 2, "optimizer": "fisher", "decay": "constant",
    "batch_size": 128, "moves": 5,
    "evaluation_walkers": 2, "evaluation_batches": 2, "progress": False,
}  # fmt: skip
# Updates whose variances make one figure.
WINDOW = 200


def train(metric: str, seed: int, steps: int, device: str) -> dict[str, Any]:
    """One fit, its frozen evaluation, and the variances of its training walkers."""
    start = time.process_time()
    found = wqmc.fit("Be", metric, seed=seed, steps=steps, device=device, **SETTINGS)
    seconds = time.process_time() - start
    frozen = wqmc.evaluate(found.wavefunction, 1024, 32, seed=seed + 2)
    error, bar = 1e3 * (frozen.energy - EXACT), 1e3 * frozen.error
    print(
        f"{metric}, seed {seed}: {error:+.2f}({bar:.2f}) mHa, variance {frozen.variance:.4f}, "
        f"{seconds:.0f} CPU-s",
        flush=True,
    )
    return {
        "energy": frozen.energy,
        "error": frozen.error,
        "variance": frozen.variance,
        "cpu_s": seconds,
        "trace": {
            "step": list(found.history.step),
            **{name: list(found.history[name]) for name in ("energy", "variance")},
        },
    }


def smoothed(run: dict[str, Any], step: float) -> float:
    """Median variance of the training walkers in the last updates before ``step``."""
    trace = run["trace"]
    window = [
        v
        for k, v in zip(trace["step"], trace["variance"], strict=True)
        if step - WINDOW < k <= step
    ]
    return statistics.median(window)


def run(device: str = "cpu") -> dict[str, Any]:
    steps = int(os.environ.get("STEPS", STEPS))
    drawn = seeds()
    runs: dict[str, list[dict[str, Any]]] = {metric: [] for metric in METRICS}
    for seed in drawn:  # in turns, so that a busy hour is everyone's
        for metric in METRICS:
            runs[metric].append(train(metric, seed, steps, device))
    rows: dict[str, Any] = {}
    for metric in METRICS:
        for seed, own, first in zip(drawn, runs[metric], runs["fisher-rao"], strict=True):
            equal = min(steps, steps * first["cpu_s"] / own["cpu_s"])
            rows[f"{metric}, seed {seed}"] = {
                "error [mHa]": 1e3 * (own["energy"] - EXACT),
                "+-": 1e3 * own["error"],
                "variance": own["variance"],
                "of walkers, steps/4": smoothed(own, steps / 4),
                "steps/2": smoothed(own, steps / 2),
                "steps": smoothed(own, steps),
                "same seconds": smoothed(own, equal),
                "cpu_s": own["cpu_s"],
            }
    return {
        "conditions": conditions(device),
        "settings": {**SETTINGS, "steps": steps, "seeds": list(drawn)},
        "runs": runs,
        "tables": {f"metrics, Be, {steps} updates": rows},
    }
