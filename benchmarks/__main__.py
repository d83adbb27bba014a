"""``python -m benchmarks [NAME ...] [--device cpu|cuda]``: all of them unless named."""

import argparse
from importlib import import_module

from benchmarks.harness import document, show, write
from sciflow import DataError

#: name -> module with ``run(device) -> dict``
BENCHMARKS = {
    "bridges": "benchmarks.bridges",
    "cnf": "benchmarks.cnf",
    "imports": "benchmarks.imports",
    "integrators": "benchmarks.integrators",
    "nct": "benchmarks.nct",
    "particles": "benchmarks.particles",
    "single_cell": "benchmarks.single_cell",
    "turbulence": "benchmarks.turbulence",
    "wqmc": "benchmarks.wqmc",
    "wqmc-metrics": "benchmarks.wqmc_metrics",
    "wqmc-peer": "benchmarks.wqmc_peer",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    for name in arguments.names or BENCHMARKS:
        if name not in BENCHMARKS:
            parser.error(f"NAME must be of {', '.join(BENCHMARKS)}; got {name!r}")
    for name in arguments.names or BENCHMARKS:
        try:
            result = import_module(BENCHMARKS[name]).run(arguments.device)
        except DataError as absent:  # real data is not part of the repository
            print(f"{name}: skipped: {absent}")
            continue
        show(name, result)
        for written in (write, document):
            print(f"written to {written(name, arguments.device, result)}")


if __name__ == "__main__":
    main()
