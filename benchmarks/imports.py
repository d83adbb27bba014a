"""What ``import sciflow`` and its core names add to ``import torch``, in fresh processes."""

import statistics
import subprocess
import sys

from benchmarks.harness import conditions

CASES = {
    "import sciflow": "import sciflow",
    "with integrate, Trainer, Snapshots": (
        "import sciflow; sciflow.integrate; sciflow.Trainer; sciflow.Snapshots"
    ),
}
SCRIPT = """
import time, torch
start = time.perf_counter()
{}
print(time.perf_counter() - start)
"""


def run(device: str) -> dict:
    """Seconds added, median and minimum of 7 processes each, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(7):
        for name, code in CASES.items():
            command = [sys.executable, "-c", SCRIPT.format(code)]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[name].append(float(result.stdout))
    table = {
        name: {"s_min": min(s), "s_median": statistics.median(s), "bound": 0.15}
        for name, s in seconds.items()
    }
    return {"conditions": conditions(device), "tables": {"added to import torch": table}}
