"""The verbs of the door ``cnf``: fit a density to a table, draw from it, evaluate it."""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from sciflow.cli.interrupt import Interrupted

In = Annotated[Path, Positional, tyro.conf.arg(metavar="IN")]
Out = Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]
Model = Annotated[Path, Positional, tyro.conf.arg(metavar="MODEL")]


# Rows integrated at once: bounds the memory.
_CHUNK = 65536


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How samples are read from IN."""

    columns: tuple[str, ...] | None = None
    """Columns of a csv file, in this order; None takes all."""
    key: str | None = None
    """Array of an npz file; None takes x, or the only one."""


def cnf_fit() -> type:
    """``sciflow cnf fit``."""
    from sciflow import cnf

    @dataclass(frozen=True, kw_only=True)
    class Fit(cnf.FitOptions, Reading):
        """Fit a continuous normalizing flow to the rows of IN, and write it to OUT.

        Flow matching first, then maximum likelihood; the mean log-density of held-out rows is
        printed, in nats per volume of the data.
        """

        path_in: In
        """Samples, a row each: .csv, .npy or .npz."""
        path_out: Out
        """Model file to write: .safetensors."""
        periods: dict[int, float] = field(default_factory=dict)
        """Periods of periodic columns, counted from 0: --periods 0 360 1 360."""

        def run(self) -> None:
            from sciflow.bridges.files import check_room
            from sciflow.data import read_samples
            from sciflow.train import Engine

            if self.path_out.suffix != ".safetensors":
                raise ValueError(f"OUT must end in .safetensors; got {self.path_out}")
            Engine.start(self.device)
            table = read_samples(self.path_in, self.columns, self.key)
            check_room(self.path_out, 2**22)
            options = {f.name: getattr(self, f.name) for f in dataclasses.fields(cnf.FitOptions)}
            flow = cnf.fit_samples(table.x, periods=self.periods, **options)
            if flow.interrupted:
                raise Interrupted(
                    "interrupted; nothing was written"
                    if self.out is None
                    else f"interrupted; the same command with --resume goes on from {self.out}"
                )
            flow.save(self.path_out, extra={"columns": table.names})
            if flow.history is not None and "eval/nll" in flow.history:
                nll = min(flow.history.series("eval/nll")[1])
                print(f"mean log-density of held-out rows: {-nll:.4f}")
            print(self.path_out)

    return Fit


def cnf_sample() -> type:
    """``sciflow cnf sample``."""

    @dataclass(frozen=True, kw_only=True)
    class Sample:
        """Draw from a fitted flow, with the log-density of each sample, and write OUT."""

        model: Model
        """The .safetensors file that a fit wrote."""
        path_out: Out
        """File to write: .csv, .npy (the samples alone) or .npz (x and log_prob)."""
        n: int = 1000
        """Number of samples."""
        seed: int = 0
        """Seed of the samples."""
        rtol: float = 1e-5
        """Tolerance of the integration."""
        device: str = "cpu"
        """Torch device: "cpu", "cuda"."""

        def run(self) -> None:
            import torch

            from sciflow.data.samples import check_suffix, write_samples

            if self.n < 1:
                raise ValueError(f"--n must be at least 1; got {self.n}")
            check_suffix(self.path_out, "write")
            flow, names = _load(self.model, self.rtol, self.device)
            generator = torch.Generator(self.device).manual_seed(self.seed)
            with torch.no_grad():
                parts = [
                    flow.sample_with_log_prob(min(_CHUNK, self.n - start), generator=generator)
                    for start in range(0, self.n, _CHUNK)
                ]
            x, log_p = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
            columns = dict(zip(names, x.T, strict=True))
            if self.path_out.suffix.lower() == ".npz":
                columns = {"x": x}
            if self.path_out.suffix.lower() != ".npy":
                columns["log_prob"] = log_p
            print(write_samples(self.path_out, columns))

    return Sample


def cnf_density() -> type:
    """``sciflow cnf density``."""

    @dataclass(frozen=True, kw_only=True)
    class Density(Reading):
        """Evaluate the log-density of a fitted flow at the rows of IN, and write OUT.

        OUT gets log_prob, in nats per volume of the data, and log_prob_error, the estimated
        error of the integration (and of the trace, where it is estimated).
        """

        model: Model
        """The .safetensors file that a fit wrote."""
        path_in: In
        """Samples, a row each: .csv, .npy or .npz; of a csv file the columns of the fit."""
        path_out: Out
        """File to write: .csv, .npy or .npz; never IN."""
        rtol: float = 1e-6
        """Tolerance of the integration."""
        probes: int = 8
        """Probes of the trace, of a flow that estimates it."""
        device: str = "cpu"
        """Torch device: "cpu", "cuda"."""

        def run(self) -> None:
            import numpy as np
            import torch

            from sciflow.data import read_samples
            from sciflow.data.samples import check_suffix, write_samples
            from sciflow.errors import DataError

            check_suffix(self.path_out, "write")
            if self.path_out.exists() and self.path_out.samefile(self.path_in):
                raise DataError(f"{self.path_out} is the input: give another file")
            flow, names = _load(self.model, self.rtol, self.device)
            csv = self.path_in.suffix.lower() == ".csv"
            table = read_samples(self.path_in, self.columns, self.key)
            if csv and self.columns is None and set(names) <= set(table.names):
                table = read_samples(self.path_in, names)
            if table.x.shape[1] != flow.dim:
                raise DataError(
                    f"{self.path_in} has {table.x.shape[1]} columns, the flow {flow.dim}: "
                    f"{', '.join(names)}"
                )
            x = torch.from_numpy(table.x)
            parts = [flow.log_likelihood(part, probes=self.probes) for part in x.split(_CHUNK)]
            value = torch.cat([part.value for part in parts]).double().cpu().numpy()
            error = torch.cat(
                [(part.trace_error**2 + part.solver_error**2).sqrt() for part in parts]
            )
            table_out = {"log_prob": value, "log_prob_error": error.double().cpu().numpy()}
            if self.path_out.suffix.lower() == ".csv":
                table_out = dict(zip(table.names, table.x.T, strict=True)) | table_out
            spread = value.std() / np.sqrt(len(value))
            print(f"mean log-density: {value.mean():.4f} +- {spread:.4f}")
            print(write_samples(self.path_out, table_out))

    return Density


def _load(path: Path, rtol: float, device: str) -> tuple[Any, list[str]]:
    """A flow that is ready to be evaluated, and the names of its columns."""
    from sciflow import cnf
    from sciflow.train import Engine, load_metadata

    flow = cnf.load(path).to(Engine.start(device).device).double()
    names = load_metadata(path).extra.get("columns", [f"x{i + 1}" for i in range(flow.dim)])
    return flow.with_solver("dopri5", rtol, rtol), names
