"""The verb of canonical transformations, ``nct fit``."""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from sciflow.cli.interrupt import Interrupted

_SUFFIXES = (".csv", ".npy", ".npz")


def nct_fit() -> type:
    """``sciflow nct fit``."""
    from sciflow import nct
    from sciflow.systems import SYSTEMS

    source = (
        f"A system by its name ({', '.join(SYSTEMS)}), or samples of coordinates: .csv (one row "
        "each, numbers only, a header line is skipped), .npy (N, n) or .npz (key q)."
    )

    @dataclass(frozen=True, kw_only=True)
    class Fit(nct.FitOptions):
        """Fit independent oscillators to a potential or to samples; write the model to OUT.

        From the name of a system its potential is fitted by the variational free energy, from a
        file the density of its samples. Prints frequencies, and the free energy of a potential.
        """

        path_in: Annotated[str, Positional, tyro.conf.arg(metavar="IN", help=source)]
        path_out: Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]
        """File to write, .safetensors; modes of samples go beside it as .npy."""
        set: dict[str, float] = field(default_factory=dict)
        """Parameters of a named system that differ from their defaults: --set n 16 beta 0.5."""
        kT: float = 1.0
        """Thermal energy, in the unit of the potential."""
        mass: tuple[float, ...] = (1.0,)
        """Mass of samples: one, or one for each coordinate; a named system has its own."""
        strict: bool = False
        """Fit phase space with the momenta of independent oscillators."""
        chart: str = "none"
        """Coordinates of the layers: "none", "polar" (of the plane), and of a chain with fixed
        ends "bonds" or "midpoints"."""

        def run(self) -> None:
            _fit(self)

    return Fit


def _fit(verb: Any) -> None:
    from sciflow import nct
    from sciflow.bridges.files import check_folder
    from sciflow.systems import SYSTEMS, make_system
    from sciflow.train import Engine

    if verb.path_out.suffix != ".safetensors":
        raise ValueError(f"OUT must end in .safetensors; got {verb.path_out}")
    path = Path(verb.path_in)
    if verb.path_in not in SYSTEMS and path.suffix not in _SUFFIXES:
        raise ValueError(
            f"IN is {verb.path_in!r}; expected a file ({', '.join(_SUFFIXES)}) or one of "
            f"{', '.join(SYSTEMS)}; trajectories of a molecule are for sciflow nct molecule"
        )
    Engine.start(verb.device)
    check_folder(verb.path_out.parent)
    options = {f.name: getattr(verb, f.name) for f in dataclasses.fields(nct.FitOptions)}
    options["out"] = verb.out or verb.path_out.with_name(f"{verb.path_out.stem}-run")
    if verb.path_in in SYSTEMS:
        whole = {k: int(v) if v.is_integer() else v for k, v in verb.set.items()}
        try:
            system = make_system(verb.path_in, **whole)
        except TypeError as error:
            raise ValueError(f"--set: {error}") from error
        chart = _chart(verb.chart, system.n_dim)
        model = nct.fit_energy(
            system.potential, system.n_dim, system.masses, verb.kT,
            chart=chart, strict=verb.strict, **options,
        )  # fmt: skip
    else:
        if verb.set:
            raise ValueError("--set is for a system by name; IN is a file")
        q = _read(path)
        mass = verb.mass[0] if len(verb.mass) == 1 else verb.mass
        chart = _chart(verb.chart, q.shape[1])
        model = nct.fit_samples(q, mass, verb.kT, chart=chart, strict=verb.strict, **options)
    if model.interrupted:
        raise Interrupted(
            f"interrupted; the same command with --resume goes on in {options['out']}"
        )
    _report(verb, model, None if verb.path_in in SYSTEMS else q)


def _report(verb: Any, model: Any, q: Any) -> None:
    shown = model.frequencies.tolist()[:10]
    more = " ..." if model.n_dim > len(shown) else ""
    print("frequencies (angular):", " ".join(f"{x:.5g}" for x in shown) + more)
    if q is None:
        estimate = model.free_energy()
        gap = "phase space" if model.strict else "coordinates"
        print(
            f"free energy: {estimate.value:.6g} +- {estimate.error:.2g} reweighted, at most "
            f"{estimate.bound:.6g} (bound of {gap}), effective share {estimate.ess:.4f}"
        )
    print(model.save(verb.path_out))
    if q is not None:
        import numpy as np
        import torch

        modes = model.modes(torch.as_tensor(q, dtype=torch.float64))
        path = verb.path_out.with_name(f"{verb.path_out.stem}-modes.npy")
        np.save(path, modes.cpu().numpy())
        print(path)


def _chart(name: str, n_dim: int) -> Any:
    from sciflow.systems.charts import BondChart, MidpointChart, PolarChart

    charts: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "polar": PolarChart,
        "bonds": lambda: BondChart(n_dim),
        "midpoints": lambda: MidpointChart(n_dim),
    }
    if name not in charts:
        raise ValueError(f"--chart must be one of {', '.join(charts)}; got {name!r}")
    return charts[name]()


def _read(path: Path) -> Any:
    """Samples (N, n) of a file.

    Raises:
        DataError: it is missing, or holds no such array.
    """
    import numpy as np

    from sciflow.errors import DataError

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        if path.suffix == ".csv":
            with open(path) as file:
                header = any(c.isalpha() and c not in "eE" for c in file.readline())
            q = np.loadtxt(path, delimiter=",", skiprows=int(header), ndmin=2)
        else:
            q = np.load(path, allow_pickle=False)
            if path.suffix == ".npz":
                if "q" not in q:
                    raise DataError(f"{path} has the keys {', '.join(q)}; expected q")
                q = q["q"]
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no table of numbers: {error}") from error
    if q.ndim != 2:
        raise DataError(f"{path} holds an array of shape {q.shape}; expected (N, n)")
    return q
