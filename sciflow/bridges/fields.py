"""The fields of an AnnData that a fit writes, in memory and in the file."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciflow import wlf
from sciflow.bridges.cell_table import CellTable, as_json, describe
from sciflow.bridges.genes import expression, gene_velocity, with_loadings
from sciflow.data import Cells
from sciflow.data.h5ad import element_reader
from sciflow.errors import DataError, require

if TYPE_CHECKING:
    from anndata import AnnData

_log = logging.getLogger(__name__)


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
        _warn_of_other(genes is not None)
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


def with_genes(
    made: AnnData,
    adata: AnnData,
    x: np.ndarray,
    rep: str,
    genes: Sequence[str] | None = None,
    layer: str | None = None,
) -> AnnData:
    """`new` cells with the expression of genes as ``X``; arguments as in ``genes.expression``."""
    values = expression(adata, x, rep, genes, layer)
    var = require("pandas", "cell").DataFrame(index=list(genes or with_loadings(adata)))
    whole: AnnData = require("anndata", "cell").AnnData(
        values, made.obs, var, obsm=dict(made.obsm)
    )
    return whole


def skeleton(path: Path, rep: str) -> AnnData | None:
    """What `annotate` needs of an h5ad file: no matrix, no layers, whatever their size.

    Returns:
        An AnnData with ``obs``, ``var``, ``obsm[rep]`` and the loadings; None for a file of before
        anndata 0.7, whose tables only ``read_h5ad`` understands.
    """
    read = element_reader()
    with require("h5py", "cell").File(path, "r") as file:
        if "encoding-type" not in file["obs"].attrs:
            return None
        made: AnnData = require("anndata", "cell").AnnData(
            obs=read(file["obs"]), var=read(file["var"]), obsm={rep: read(file["obsm"][rep])}
        )
        if "PCs" in file.get("varm", {}):
            made.varm["PCs"] = read(file["varm"]["PCs"])
        return made


def write_into(adata: AnnData, path_in: Path, path_out: Path, key_added: str = "sciflow") -> None:
    """Copy an h5ad file and write into the copy what `annotate` set on its `skeleton`."""
    shutil.copyfile(path_in, path_out)
    write = require("anndata", "cell").io.write_elem
    with require("h5py", "cell").File(path_out, "r+") as file:
        write(file, "obs", adata.obs)
        for group in ("obsm", "layers", "uns"):
            if group not in file:
                write(file, group, {})
        if "velocity" in file["layers"]:
            if key_added not in file["uns"]:
                _warn_of_other(bool(len(adata.layers)))
            del file["layers"]["velocity"]
        key = velocity_key(str(adata.uns[key_added]["rep"]))
        write(file["obsm"], key, adata.obsm[key])
        write(file["uns"], key_added, adata.uns[key_added])
        if "velocity" in adata.layers:
            write(file["layers"], "velocity", adata.layers["velocity"])


def _warn_of_other(replaced: bool) -> None:
    # A velocity of another tool would disagree with the rest of what is written here.
    _log.warning("%s layers['velocity']", "replacing" if replaced else "removing")


def _set_fields(adata: AnnData, table: CellTable, rep: str, key_added: str) -> None:
    """What every AnnData of ours has for its cells."""
    kind = getattr(adata.obsm[rep], "dtype", np.dtype(np.float64))
    dtype = kind if getattr(kind, "kind", "") == "f" else np.dtype(np.float64)
    adata.obsm[velocity_key(rep)] = table.velocity.astype(dtype)
    adata.obs["growth_rate"] = table.growth
    adata.obs[f"{key_added}_potential"] = table.potential
    if table.log_weight is not None:
        adata.obs["log_weight"] = table.log_weight


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
