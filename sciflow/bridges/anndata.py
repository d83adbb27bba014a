"""Fits on AnnData, for scanpy, scVelo and CellRank: keys in, keys out.

>>> from sciflow.bridges import anndata as sfa
>>> sfa.fit(adata, time_key="day", n_dims=10)  # doctest: +SKIP
>>> later = sfa.predict(adata, 3.0, 6.0)  # doctest: +SKIP

``scvelo.pl.velocity_embedding_stream(adata, basis="pca")`` draws what ``fit`` wrote.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciflow import wlf
from sciflow.bridges.cell_table import CellTable, as_json, describe, move
from sciflow.bridges.genes import gene_velocity
from sciflow.data import Cells
from sciflow.data.h5ad import as_is, collect
from sciflow.data.times import parse_times
from sciflow.errors import DataError, require

if TYPE_CHECKING:
    from anndata import AnnData

_log = logging.getLogger(__name__)


def fit(
    adata: AnnData,
    *,
    time_key: str | None = None,
    use_rep: str = "X_pca",
    n_dims: int | None = None,
    lagrangian: str | wlf.Lagrangian = "ot",
    hold_out: Iterable[int] = (),
    times: Mapping[str, float | int] | None = None,
    key_added: str = "sciflow",
    copy: bool = False,
    **options: Any,
) -> AnnData | None:
    """Fit a Wasserstein Lagrangian flow (arXiv:2310.10649) to cells at several times.

    Args:
        adata: cells; ``X`` is not read.
        time_key: column of ``obs`` with the times, numbers or categories; None for the one that
            is called ``time``, ``day`` ...
        use_rep: entry of ``obsm`` with the coordinates in which cells are transported.
        n_dims: use the first coordinates only; None for all.
        lagrangian: name in ``wlf.LAGRANGIANS``, or a ``Lagrangian``.
        hold_out: indices of time points (from 0, in order of time) that the fit must not see.
        times: time of each label of ``time_key``, for labels that are not numbers.
        key_added: name of the entry of ``uns``.
        copy: write to a copy of ``adata``, and return it.
        options: fields of ``wlf.FitOptions``: ``steps``, ``seed``, ``progress`` ...

    Returns:
        The annotated copy if ``copy``, else None.

    Sets the following fields:
        ``adata.obsm["velocity_pca"]``: (cells, n_dims) velocity at the cell's own time, in units
            of the representation per unit of time (named after ``use_rep``: ``X_pca``).
        ``adata.layers["velocity"]``: (cells, genes) float32, the same through the loadings
            ``varm["PCs"]``; NaN for genes without loadings. Only for ``X_pca`` with its loadings,
            and up to ``genes.LAYER_LIMIT`` bytes.
        ``adata.obs["growth_rate"]``: rate of growth of the mass, per unit of time; zero for
            Lagrangians that conserve mass.
        ``adata.obs["sciflow_potential"]``: potential, in units^2 of the representation per unit
            of time; its zero is arbitrary at each time.
        ``adata.uns["sciflow"]``: ``config`` (JSON), ``history`` (arrays), ``metrics`` (action),
            ``model`` (what `model` reads), ``time_key``, ``rep``, ``version``.

    Raises:
        DataError: a key is missing or the cells cannot be used; the key or cell is named.
        ValueError: an option is out of range.
    """
    cells = read(adata, time_key=time_key, use_rep=use_rep, n_dims=n_dims, times=times)
    settings = wlf.FitOptions(**options)
    hold_out = [int(k) for k in hold_out]
    fitted = wlf.fit(cells.snapshots(), lagrangian, hold_out, **options)
    config = {
        "door": "wlf",
        "lagrangian": lagrangian if isinstance(lagrangian, str) else repr(lagrangian),
        "hold_out": hold_out,
        "times": None if times is None else dict(times),
        **asdict(settings),
    }
    target = adata.copy() if copy else adata
    annotate(target, cells, fitted, config, key_added=key_added)
    return target if copy else None


def read(
    adata: AnnData,
    *,
    time_key: str | None = None,
    use_rep: str = "X_pca",
    n_dims: int | None = None,
    times: Mapping[str, float | int] | None = None,
) -> Cells:
    """Cells of an AnnData in memory, checked as those of a file; arguments as in `fit`.

    Raises:
        DataError: a key is missing or the cells cannot be used; the key or cell is named.
    """
    where = "adata"
    raw = collect(Path(where), adata.obs, adata.obsm, adata.uns, as_is, time_key, use_rep, None)
    time = parse_times(
        raw.time,
        f"{where}: obs[{raw.time_key!r}]",
        lambda row: f"cell {raw.names[row]!r} (row {row}, from 0)",
        times,
    )
    n = len(raw.features)
    if n_dims is not None and not 1 <= n_dims <= n:
        raise DataError(f"{where}: n_dims is {n_dims}, but {use_rep!r} has {n} features")
    # What is not asked for is not checked.
    x, features = raw.x[:, :n_dims], raw.features[:n_dims]
    return Cells(x, time, raw.names, features, Path(where), raw.time_key, raw.rep)


def annotate(
    adata: AnnData,
    cells: Cells,
    model: wlf.ActionPotential,
    config: Mapping[str, Any],
    *,
    rep: str | None = None,
    key_added: str = "sciflow",
) -> None:
    """Write what a model says of ``cells``, the cells of ``adata`` in their order.

    Args:
        adata: written to, in place.
        cells: the cells that were fitted, as `read` or ``read_cells`` gives them.
        model: what was fitted to them.
        config: settings of the fit, as JSON values.
        rep: entry of ``obsm`` with the features of the cells; None for ``cells.rep``.
        key_added: name of the entry of ``uns``.

    Sets the following fields:
        Those of `fit`.

    Raises:
        DataError: the cells are not those of ``adata``.
    """
    if len(cells.names) != adata.n_obs:
        raise DataError(f"there are {len(cells.names)} cells, adata has {adata.n_obs}")
    table = describe(model, cells.names, cells.features, cells.time, cells.x)
    rep = rep or cells.rep
    genes = gene_velocity(adata, rep, table.velocity)
    if "velocity" in adata.layers and key_added not in adata.uns:
        # Of another tool: it would disagree with the rest of what is written here.
        _log.warning("%s layers['velocity']", "removing" if genes is None else "replacing")
    adata.layers.pop("velocity", None)
    if genes is not None:
        adata.layers["velocity"] = genes
    _set_fields(adata, table, rep, key_added)
    columns = {} if model.history is None else {n: model.history[n] for n in model.history.names}
    steps = [] if model.history is None else model.history.step
    adata.uns[key_added] = {
        "config": as_json(config),
        "history": {
            "step": np.array(steps, dtype=np.int64),
            # h5ad takes a slash in a key as the border of a group.
            **{name.replace("/", "_"): np.array(column) for name, column in columns.items()},
        },
        "metrics": _metrics(model),
        "model": _packed(model),
        "n_dims": cells.n_dims,
        "rep": rep,
        "time_key": cells.time_key,
        "version": _version(),
    }


def model(adata: AnnData, key_added: str = "sciflow") -> wlf.ActionPotential:
    """The model that `fit` left in ``uns``, also after a round trip through h5ad.

    Raises:
        DataError: there is none.
    """
    entry = adata.uns.get(key_added, {})
    if "model" not in entry:
        raise DataError(
            f"no model in uns[{key_added!r}]: call fit first (uns has {', '.join(adata.uns)})"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(np.asarray(entry["model"], dtype=np.uint8).tobytes())
        return wlf.load(path)


def predict(
    adata: AnnData,
    start: float,
    times: float | Sequence[float],
    *,
    n_steps: int | None = None,
    key_added: str = "sciflow",
) -> AnnData:
    """Move the cells of one time to other times, into a new AnnData.

    Args:
        adata: what `fit` annotated.
        start: time of the cells to move.
        times: time or times to move them to, in order, all later or all earlier.
        n_steps: constant Runge-Kutta steps from one time to the next; None for adaptive steps.
        key_added: entry of ``uns`` with the model.

    Returns:
        A new AnnData without genes, the moved cells time after time, with ``obs`` (the time,
        ``source_cell``, ``growth_rate``, ``sciflow_potential``) and ``obsm`` (``X_pca``,
        ``velocity_pca``, named after the representation of the fit).

    Raises:
        DataError: there is no model, or no cell at ``start``.
        ValueError: the times are not in order.
    """
    fitted, entry = model(adata, key_added), adata.uns[key_added]
    rep, time_key = str(entry["rep"]), str(entry["time_key"])
    labels = json.loads(str(entry["config"])).get("times")
    cells = read(adata, time_key=time_key, use_rep=rep, n_dims=int(entry["n_dims"]), times=labels)
    rows = at_time(cells, start)
    names = [cells.names[row] for row in rows]
    stops = [float(t) for t in np.atleast_1d(times)]
    table = move(fitted, names, cells.features, cells.x[rows], start, stops, n_steps)
    return new(table, names * len(stops), time_key, rep, key_added)


def at_time(cells: Cells, start: float) -> np.ndarray:
    """Rows of the cells at a time.

    Raises:
        DataError: there are none; the times there are are listed.
    """
    rows = np.flatnonzero(np.isclose(cells.time, start, rtol=1e-9, atol=0.0))
    if not len(rows):
        points = ", ".join(f"{t:g}" for t in cells.time_points)
        raise DataError(f"{cells.path}: no cells at time {start:g}; the times are {points}")
    return rows


def new(
    table: CellTable,
    sources: Sequence[str] | None,
    time_key: str,
    rep: str,
    key_added: str = "sciflow",
) -> AnnData:
    """An AnnData without genes from a table of cells.

    Args:
        table: the cells.
        sources: name of the cell that each row came from; None leaves the column out.
        time_key: column of ``obs`` for the times.
        rep: entry of ``obsm`` for the features.
        key_added: prefix of the column of the potential.
    """
    obs = require("pandas", "cell").DataFrame({time_key: table.t}, index=table.names)
    if sources is not None:
        obs["source_cell"] = list(sources)
    made: AnnData = require("anndata", "cell").AnnData(obs=obs, obsm={rep: table.x})
    _set_fields(made, table, rep, key_added)
    return made


def _set_fields(adata: AnnData, table: CellTable, rep: str, key_added: str) -> None:
    """What every AnnData of ours has for its cells."""
    kind = getattr(adata.obsm[rep], "dtype", np.dtype(np.float64))
    dtype = kind if getattr(kind, "kind", "") == "f" else np.dtype(np.float64)
    adata.obsm[velocity_key(rep)] = table.velocity.astype(dtype)
    adata.obs["growth_rate"] = table.growth
    adata.obs[f"{key_added}_potential"] = table.potential


def velocity_key(rep: str) -> str:
    """Where scVelo looks for the velocity of a representation: X_pca, velocity_pca."""
    return f"velocity_{rep.removeprefix('X_')}"


def _metrics(model: wlf.ActionPotential) -> dict[str, float]:
    if model.measured_action is None:
        return {}
    action = model.action()
    return {"action": float(action.rollout), "action_dual": float(action.dual)}


def _packed(model: wlf.ActionPotential) -> np.ndarray:
    """The bytes of a model file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        model.save(path)
        return np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()


def _version() -> str:
    from sciflow import __version__

    return __version__
