"""Fair timing: competitors take turns in one process, and the ratio is of the same rounds."""

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def conditions(device: str, *packages: str) -> dict[str, Any]:
    """What the figures depend on, without naming the machine."""
    versions = {}
    for package in ("torch", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "versions": versions,
        "device": name,
        "threads": torch.get_num_threads(),
    }


def race(
    competitors: dict[str, Callable[[], Any]],
    device: str = "cpu",
    rounds: int = 7,
    first: str | None = None,
) -> dict[str, dict[str, float]]:
    """Time the competitors in turns, after one untimed call each.

    Returns:
        Per competitor, CPU and wall milliseconds, minimum and median over the rounds, and
        ``ratio``: the time of ``first`` (by default the first competitor) over its own, as the
        ratio of minima; below 1 ``first`` is the faster. CPU time on the CPU, which does not
        count the work of others; wall time on an accelerator, which the CPU waits for.
    """
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in competitors}
    for run in competitors.values():
        run()
    _wait(device)
    for _ in range(rounds):
        for name, run in competitors.items():
            gc.collect()
            _wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            _wait(device)
            samples[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    table = {}
    for name, pairs in samples.items():
        cpus, walls = zip(*pairs, strict=True)
        table[name] = {
            "cpu_ms_min": 1e3 * min(cpus),
            "cpu_ms_median": 1e3 * statistics.median(cpus),
            "wall_ms_min": 1e3 * min(walls),
            "wall_ms_median": 1e3 * statistics.median(walls),
        }
    kind = "cpu" if device == "cpu" else "wall"
    own = table[first or next(iter(competitors))]
    for row in table.values():
        row["ratio"] = own[f"{kind}_ms_min"] / row[f"{kind}_ms_min"]
        row["ratio_of_medians"] = own[f"{kind}_ms_median"] / row[f"{kind}_ms_median"]
    return table


def short(row: dict[str, float], device: str) -> dict[str, float]:
    """The columns of a table: the time that counts, and the first competitor's over this one's."""
    kind = "cpu" if device == "cpu" else "wall"
    return {
        "ms_min": row[f"{kind}_ms_min"],
        "ms_median": row[f"{kind}_ms_median"],
        "wall_ms_min": row["wall_ms_min"],
        "sciflow/this": row["ratio"],
        "of_medians": row["ratio_of_medians"],
    }


def seeds(usual: int = 3) -> tuple[int, ...]:
    """Seeds 0, 1, ... of a benchmark: as many as ``SEEDS`` in the environment says."""
    return tuple(range(int(os.environ.get("SEEDS", usual))))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def write(name: str, device: str, result: dict[str, Any]) -> Path:
    """Keep a result as ``results/NAME-DEVICE.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{device}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path.relative_to(RESULTS.parent.parent)


def show(name: str, result: dict[str, Any]) -> None:
    """Print ``result["tables"]``: title -> competitor -> figures."""
    print(f"{name}: {json.dumps(result['conditions'])}")
    for title, table in result["tables"].items():
        columns = list(dict.fromkeys(key for row in table.values() for key in row))
        cells = [[title, *columns]]
        cells += [[who, *(_cell(row.get(c)) for c in columns)] for who, row in table.items()]
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        print()
        for line in cells:
            first, *rest = (f"{x:<{w}}" if i == 0 else f"{x:>{w}}" for i, (x, w) in
                            enumerate(zip(line, widths, strict=True)))  # fmt: skip
            print("  ".join([first, *rest]))
    print()


def document(name: str, device: str, result: dict[str, Any]) -> Path:
    """Write the tables of a result into the guide.

    ``docs/performance.md`` holds one section per result between two comments; only that section
    is replaced, and the text around it stays.
    """
    path = RESULTS.parent.parent / "docs" / "performance.md"
    begin, end = f"<!-- begin {name}-{device} -->", f"<!-- end {name}-{device} -->"
    about = result["conditions"]
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items() if v)
    lines = [f"Python {about['python']}, {versions}; {about['device']}, threads: "
             f"{about['threads']}.", ""]  # fmt: skip
    for title, table in result["tables"].items():
        columns = list(dict.fromkeys(key for row in table.values() for key in row))
        lines += [f"### {title}", "", "| | " + " | ".join(columns) + " |"]
        lines.append("|---|" + "---:|" * len(columns))
        for who, row in table.items():
            lines.append(f"| {who} | " + " | ".join(_cell(row.get(c)) for c in columns) + " |")
        lines.append("")
    section = "\n".join([begin, *lines, end])
    text = path.read_text() if path.exists() else "# Performance\n"
    if begin in text:
        before, rest = text.split(begin)
        text = before + section + rest.split(end)[1]
    else:
        text = f"{text.rstrip()}\n\n## {name}, {device}\n\n{section}\n"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path.relative_to(RESULTS.parent.parent)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
