"""The table of verbs, and those of data, report and demo.

A verb is one function that imports its door and returns a dataclass with ``run``, and one line in
``VERBS``. tyro makes the options, their defaults and their help of the fields and the docstrings
under them, so that nothing is described twice.
"""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from tyro.conf import Positional

from sciflow.cli.cnf import cnf_density, cnf_fit, cnf_sample
from sciflow.cli.export import export_model
from sciflow.cli.interrupt import stop_at_once
from sciflow.cli.molecules import nct_molecule, nct_simulate
from sciflow.cli.nct import nct_fit
from sciflow.cli.transport import am_fit, wlf_evaluate, wlf_fit, wlf_predict
from sciflow.cli.turbulence import turbulence_fit, turbulence_forecast, turbulence_simulate
from sciflow.cli.wqmc import wqmc_evaluate, wqmc_fit


def _data_list() -> type:
    @dataclass(frozen=True, kw_only=True)
    class List:
        """List the named data sets, and where each is on this machine."""

        def run(self) -> None:
            from sciflow.data import listing

            rows = listing()
            width = max(len(row.name) for row in rows)
            for row in rows:
                size = "" if row.size is None else f"{row.size / 1e6:.1f} MB"
                by_hand = "" if row.downloadable else " Not downloadable: put it in by hand."
                print(f"{row.name:<{width}}  {row.where:<11}  {size:>10}  {row.licence}")
                print(f"{'':<{width}}  {row.description}{by_hand}")

    return List


def _data_fetch() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Fetch:
        """Download named data sets where they are not on this machine, and print their files."""

        names: Annotated[tuple[str, ...], Positional, tyro.conf.arg(metavar="NAME [NAME ...]")]
        """Names, as `sciflow data list` gives them."""

        def run(self) -> None:
            from sciflow.data import fetch

            if not self.names:
                raise ValueError("give the name of a data set: sciflow data list shows them")
            for path in fetch(self.names):
                print(path)

    return Fetch


def _data_path() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Where:
        """Print the checked file of a data set that is on this machine; downloads nothing."""

        name: Annotated[str, Positional, tyro.conf.arg(metavar="NAME")]
        """Name, as `sciflow data list` gives it."""

        def run(self) -> None:
            from sciflow.data import path

            print(path(self.name, download=False))

    return Where


def _report() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Collect:
        """Make one index.html of all reports (metrics.json) in and below FOLDER."""

        folder: Annotated[Path, Positional, tyro.conf.arg(metavar="FOLDER")]
        """Folder that recipes wrote to; the page goes there."""

        def run(self) -> None:
            from sciflow.report import read_reports, write_index

            if not self.folder.is_dir():
                raise FileNotFoundError(f"there is no folder {self.folder}")
            print(write_index(read_reports(self.folder), self.folder))

    return Collect


def _demo() -> type:
    @dataclass(frozen=True, kw_only=True)
    class Demo:
        """Run small versions of what sciflow does, each beside its exact or published value."""

        out: Path = Path("out")
        """Folder for index.html, figures and numbers."""

        def run(self) -> None:
            from sciflow.bridges.files import check_folder
            from sciflow.demo import run

            check_folder(self.out)
            with stop_at_once():
                print(run(self.out))

    return Demo


class Verb(NamedTuple):
    """What it does, in a line, and the function that imports it."""

    summary: str
    load: Callable[[], type]


VERBS: dict[str, Verb] = {
    "demo": Verb("run small versions of what sciflow does", _demo),
    "nct fit": Verb("fit independent oscillators to a potential or to samples", nct_fit),
    "nct molecule": Verb("fit independent oscillators to trajectories", nct_molecule),
    "nct simulate": Verb("simulate alanine dipeptide in implicit solvent", nct_simulate),
    "turbulence simulate": Verb("simulate decaying turbulence in a box", turbulence_simulate),
    "turbulence fit": Verb("fit a forecaster to decays of turbulence", turbulence_fit),
    "turbulence forecast": Verb("forecast kinetic energy and dissipation", turbulence_forecast),
    "cnf fit": Verb("fit a normalizing flow to samples", cnf_fit),
    "cnf sample": Verb("draw from a fitted flow, with log-densities", cnf_sample),
    "cnf density": Verb("evaluate the log-density of a fitted flow", cnf_density),
    "am fit": Verb("fit a flow to cells by action matching", am_fit),
    "wlf fit": Verb("fit a flow of least action through cells at several times", wlf_fit),
    "wlf predict": Verb("move cells to other times with a fitted model", wlf_predict),
    "wlf evaluate": Verb("score predictions of held-out times", wlf_evaluate),
    "wqmc fit": Verb("find the ground state of an atom or molecule", wqmc_fit),
    "wqmc evaluate": Verb("measure energy, dipole and forces of a ground state", wqmc_evaluate),
    "export": Verb("write a fitted model for simulation codes", export_model),
    "data list": Verb("list the named data sets", _data_list),
    "data fetch": Verb("download named data sets", _data_fetch),
    "data path": Verb("print the file of a data set", _data_path),
    "report": Verb("make one page of the reports in a folder", _report),
}
