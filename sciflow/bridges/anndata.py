"""Fits on AnnData, for scanpy, scVelo and CellRank: keys in, keys out.

>>> from sciflow.bridges import anndata as sfa
>>> sfa.fit(adata, time_key="day", n_dims=10)  # doctest: +SKIP
>>> later = sfa.predict(adata, 3.0, 6.0)  # doctest: +SKIP

``scvelo.pl.velocity_embedding_stream(adata, basis="pca")`` draws what ``fit`` wrote. An AnnData
that is backed by a file stays there: its ``X`` is not read, but for the means of genes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sciflow import wlf
from sciflow.bridges.cell_table import move, warn_beyond
from sciflow.bridges.embedding import embed_velocity
from sciflow.bridges.fields import annotate, model, new, with_genes
from sciflow.bridges.genes import expression
from sciflow.data import Cells
from sciflow.data.cells import checked
from sciflow.data.h5ad import as_is, collect
from sciflow.errors import DataError, require

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["embed_velocity", "evaluate", "fit", "genes", "model", "predict", "trajectories"]


def fit(
    adata: AnnData,
    *,
    time_key: str | None = None,
    use_rep: str = "X_pca",
    n_dims: int | None = None,
    lagrangian: str | wlf.Lagrangian = "ot",
    potential: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    masses: str | None = None,
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
        potential: the user's own potential energy ``U(t, x)``, (n,) from (n,) and (n, d).
        masses: what the mass at each time is: ``"counts"``, the number of cells; a column of
            ``obs`` with the weight of each cell; an entry of ``uns`` with the mass at each time.
            None knows no masses, so that growth only reshapes a mass of one.
        hold_out: indices of time points (from 0, in order of time) that the fit must not see.
        times: time of each label of ``time_key``, for labels that are not numbers.
        key_added: name of the entry of ``uns``.
        copy: write to a copy of ``adata``, and return it.
        options: fields of ``wlf.FitOptions``: ``sigma``, ``growth_penalty``, ``steps``, ``seed``,
            ``progress`` ...

    Returns:
        The annotated copy if ``copy``, else None.

    Sets the following fields:
        ``adata.obsm["velocity_pca"]``: (cells, n_dims) velocity at the cell's own time, in units
            of the representation per unit of time (named after ``use_rep``: ``X_pca``).
        ``adata.layers["velocity"]``: (cells, genes) float32, the same through the loadings
            ``varm["PCs"]``; NaN for genes without loadings. Only for ``X_pca`` with its loadings,
            up to ``genes.LAYER_LIMIT`` bytes, and for an AnnData in memory.
        ``adata.obs["growth_rate"]``: rate of growth of the mass, per unit of time; zero for
            Lagrangians that conserve mass.
        ``adata.obs["sciflow_potential"]``: potential, in units^2 of the representation per unit
            of time; its zero is arbitrary at each time, unless mass grows.
        ``adata.uns["sciflow"]``: ``config`` (JSON), ``history`` (arrays), ``metrics`` (action),
            ``model`` (what `model` reads), ``time_key``, ``rep``, ``version``.

    Raises:
        DataError: a key is missing or the cells cannot be used; the key or cell is named.
        ValueError: an option is out of range.
    """
    _refuse_copy(adata, copy)
    mass_key = None if masses == "counts" else masses
    cells = read(
        adata, time_key=time_key, use_rep=use_rep, n_dims=n_dims, mass_key=mass_key, times=times
    )
    settings = wlf.FitOptions(**options)
    hold_out = [int(k) for k in hold_out]
    snapshots = cells.snapshots("counts" if masses == "counts" else "file")
    fitted = wlf.fit(snapshots, lagrangian, hold_out, potential=potential, **options)
    config = {
        "door": "wlf",
        "lagrangian": lagrangian if isinstance(lagrangian, str) else repr(lagrangian),
        "potential": None if potential is None else repr(potential),
        "masses": masses,
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
    mass_key: str | None = None,
    times: Mapping[str, float | int] | None = None,
) -> Cells:
    """Cells of an AnnData, checked as those of a file; arguments as in ``read_cells``.

    Raises:
        DataError: a key is missing or the cells cannot be used; the key or cell is named.
    """
    where = Path("adata")
    parts = (adata.obs, adata.obsm, adata.uns)
    raw = collect(where, *parts, as_is, time_key, use_rep, mass_key)
    return checked(raw, where, n_dims, mass_key, times)


def predict(
    adata: AnnData,
    start: float,
    times: float | Sequence[float],
    *,
    genes: bool | Sequence[str] = False,
    layer: str | None = None,
    n_steps: int | None = None,
    seed: int = 0,
    key_added: str = "sciflow",
) -> AnnData:
    """Move the cells of one time to other times, into a new AnnData.

    Args:
        adata: what `fit` annotated.
        start: time of the cells to move.
        times: time or times to move them to, before or after the start, in any order.
        genes: give the expression of these genes as ``X``, through the loadings of the PCA; True
            for all genes with loadings.
        layer: the matrix that the PCA was made of; None for ``X``. Used for genes only.
        n_steps: constant steps from one time to the next; None for adaptive steps.
        seed: seed of the noise, where the flow has some.
        key_added: entry of ``uns`` with the model.

    Returns:
        A new AnnData, the moved cells time after time, with ``obs`` (the time, ``source_cell``,
        ``growth_rate``, ``sciflow_potential`` and, where mass grows, ``log_weight``) and ``obsm``
        (``X_pca``, ``velocity_pca``, named after the representation of the fit); with ``X`` if
        genes are asked for.

    Raises:
        DataError: there is no model, no cell at ``start``, or the genes asked for cannot be had.
        ValueError: a time is not finite, or the flow has noise and a time lies before the start.
    """
    fitted, entry, cells = _fitted(adata, key_added)
    rep, time_key = str(entry["rep"]), str(entry["time_key"])
    rows = at_time(cells, start)
    names = [cells.names[row] for row in rows]
    stops = [float(t) for t in np.atleast_1d(times)]
    wanted = None if genes is False or genes is True else list(genes)
    if genes is not False:  # before anything is moved
        expression(adata, cells.x[:1], rep, wanted, layer)
    table = move(fitted, names, cells.features, cells.x[rows], start, stops, n_steps, seed)
    made = new(table, names * len(stops), time_key, rep, key_added)
    return made if genes is False else with_genes(made, adata, table.x, rep, wanted, layer)


def genes(
    adata: AnnData,
    x: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    layer: str | None = None,
    key_added: str = "sciflow",
) -> np.ndarray:
    """Expression of genes at positions in the representation of the fit: trajectories, say.

    Args:
        adata: what `fit` annotated.
        x: (..., d) positions.
        names: names of the genes; None for all with loadings.
        layer: the matrix that the PCA was made of; None for ``X``.
        key_added: entry of ``uns`` of the fit.

    Returns:
        (..., genes) float32, in units of that matrix.

    Raises:
        DataError: nothing was fitted, the representation is not linear in the genes, or a gene
            is unknown.
    """
    _, entry, _ = _fitted(adata, key_added)
    flat = np.asarray(x, dtype=np.float64).reshape(-1, np.shape(x)[-1])
    values = expression(adata, flat, str(entry["rep"]), names, layer)
    return values.reshape(*np.shape(x)[:-1], -1)


def trajectories(
    adata: AnnData,
    times: Sequence[float],
    *,
    start: float | None = None,
    n_cells: int | None = None,
    n_steps: int | None = None,
    seed: int = 0,
    key_added: str = "sciflow",
    copy: bool = False,
) -> AnnData | None:
    """Follow cells of one time through other times.

    Args:
        adata: what `fit` annotated.
        times: times at which they are wanted, before or after the start, in any order.
        start: time of the cells; None for the first.
        n_cells: follow so many of them, evenly taken; None for all.
        n_steps: constant steps from one time to the next; None for adaptive steps.
        seed: seed of the noise, where the flow has some.
        key_added: entry of ``uns`` with the model.
        copy: write to a copy of ``adata``, and return it.

    Returns:
        The annotated copy if ``copy``, else None.

    Sets the following fields:
        ``adata.uns["sciflow_trajectories"]``: ``t`` (T,), ``x`` (T, cells, d), ``source`` (names
            of the cells), and ``log_weight`` (T, cells) where mass grows.

    Raises:
        DataError: there is no model, or no cell at ``start``.
        ValueError: a time is not finite, or the flow has noise and a time lies before the start.
    """
    _refuse_copy(adata, copy)
    fitted, _, cells = _fitted(adata, key_added)
    start = float(cells.time_points[0]) if start is None else start
    rows = at_time(cells, start)
    if n_cells is not None:
        rows = rows[np.linspace(0, len(rows) - 1, min(n_cells, len(rows))).astype(int)]
    warn_beyond(fitted, [start, *times])
    x0 = torch.tensor(cells.x[rows], dtype=torch.float64, device=fitted.center.device)
    moved = fitted.predict(x0, start, [float(t) for t in times], n_steps, seed)
    entry = {
        "t": moved.t.cpu().numpy(),
        "x": moved.x.cpu().numpy(),
        "source": np.array([cells.names[row] for row in rows], dtype=str),
    }
    if moved.log_weight is not None:
        entry["log_weight"] = moved.log_weight.cpu().numpy()
    target = adata.copy() if copy else adata
    target.uns[f"{key_added}_trajectories"] = entry
    return target if copy else None


def evaluate(
    adata: AnnData,
    *,
    hold_out: Literal["each", "pairs"] | Iterable[int | tuple[int, ...]] = "each",
    time_key: str | None = None,
    use_rep: str = "X_pca",
    n_dims: int | None = None,
    masses: str | None = None,
    times: Mapping[str, float | int] | None = None,
    key_added: str = "sciflow",
    copy: bool = False,
    **options: Any,
) -> AnnData | None:
    """Leave out time points, predict them, and score the predictions against baselines.

    Args:
        adata: cells; ``X`` is not read.
        hold_out: as in ``wlf.evaluate``.
        time_key: see `fit`.
        use_rep: see `fit`.
        n_dims: see `fit`.
        masses: see `fit`.
        times: see `fit`.
        key_added: first part of the name of the entry of ``uns``.
        copy: write to a copy of ``adata``, and return it.
        options: further arguments of ``wlf.evaluate``: ``lagrangian``, ``seeds``, ``whiten``, and
            fields of ``wlf.FitOptions``.

    Returns:
        The annotated copy if ``copy``, else None.

    Sets the following fields:
        ``adata.uns["sciflow_evaluation"]``: table of scores, a row for each method and held-out
            time; the time of means is NaN, and so is the error of a mass that is not known.

    Raises:
        DataError: fewer than three time points, or cells that cannot be used.
        ValueError: an option is out of range.
    """
    _refuse_copy(adata, copy)
    mass_key = None if masses == "counts" else masses
    cells = read(
        adata, time_key=time_key, use_rep=use_rep, n_dims=n_dims, mass_key=mass_key, times=times
    )
    snapshots = cells.snapshots("counts" if masses == "counts" else "file")
    result = wlf.evaluate(snapshots, hold_out, **options)
    frame = require("pandas", "cell").DataFrame([asdict(row) for row in result.rows])
    for name in ("time", "mass_error"):  # None, where there is none, is NaN
        frame[name] = frame[name].astype(float)
    frame["seeds"] = [" ".join(map(str, row.seeds)) for row in result.rows]
    frame.index = frame.index.astype(str)
    target = adata.copy() if copy else adata
    target.uns[f"{key_added}_evaluation"] = frame
    return target if copy else None


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


def _fitted(
    adata: AnnData, key_added: str
) -> tuple[wlf.ActionPotential, Mapping[str, Any], Cells]:
    """The model, its entry of ``uns``, and the cells as the fit read them."""
    fitted, entry = model(adata, key_added), adata.uns[key_added]
    cells = read(
        adata,
        time_key=str(entry["time_key"]),
        use_rep=str(entry["rep"]),
        n_dims=int(entry["n_dims"]),
        times=json.loads(str(entry["config"])).get("times"),
    )
    return fitted, entry, cells


def _refuse_copy(adata: AnnData, copy: bool) -> None:
    if copy and adata.isbacked:
        raise DataError("copy=True needs an AnnData in memory; this one is backed by a file")
