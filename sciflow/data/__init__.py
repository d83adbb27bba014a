"""Data sets by name, and readers of the files that users bring."""

from __future__ import annotations

from sciflow.data.alanine import alanine_dipeptide, read_mdshare
from sciflow.data.cells import Cells, read_cells
from sciflow.data.datasets import DATASETS, Dataset
from sciflow.data.dequantise import Dequantised, Dequantiser, bits_per_dim
from sciflow.data.idx import LabelledImages, mnist, read_idx, read_images
from sciflow.data.registry import DatasetStatus, fetch, find, listing, path
from sciflow.data.samples import Table, read_samples, write_samples

__all__ = [
    "DATASETS",
    "Cells",
    "Dataset",
    "DatasetStatus",
    "Dequantised",
    "Dequantiser",
    "LabelledImages",
    "Table",
    "alanine_dipeptide",
    "bits_per_dim",
    "fetch",
    "find",
    "listing",
    "mnist",
    "path",
    "read_cells",
    "read_idx",
    "read_images",
    "read_mdshare",
    "read_samples",
    "write_samples",
]
