"""Data sets by name, and readers of the files that users bring."""

from __future__ import annotations

from sciflow.data.alanine import alanine_dipeptide, read_mdshare
from sciflow.data.cells import Cells, read_cells
from sciflow.data.datasets import DATASETS, Dataset
from sciflow.data.registry import DatasetStatus, fetch, find, listing, path

__all__ = [
    "DATASETS",
    "Cells",
    "Dataset",
    "DatasetStatus",
    "alanine_dipeptide",
    "fetch",
    "find",
    "listing",
    "path",
    "read_cells",
    "read_mdshare",
]
