"""The one sample-based trainer: sources of samples, the loop, updates, checkpoints, logs.

>>> trainer = Trainer(steps=1000, out="runs/ring")
>>> result = trainer.fit(objective, Samples(x))  # doctest: +SKIP
"""

from sciflow.train.checkpoint import (
    ModelInfo,
    load_metadata,
    load_model,
    load_weights,
    save_model,
)
from sciflow.train.engine import Engine
from sciflow.train.history import FitResult, History
from sciflow.train.interrupt import StopTraining
from sciflow.train.objective import Loss, Objective
from sciflow.train.options import RunOptions
from sciflow.train.sources import (
    EnergySampler,
    Samples,
    SnapshotBatch,
    Snapshots,
    Source,
    Walkers,
)
from sciflow.train.trainer import Trainer
from sciflow.train.update import ParamGroup, Update

__all__ = [
    "EnergySampler",
    "Engine",
    "FitResult",
    "History",
    "Loss",
    "ModelInfo",
    "Objective",
    "ParamGroup",
    "RunOptions",
    "Samples",
    "SnapshotBatch",
    "Snapshots",
    "Source",
    "StopTraining",
    "Trainer",
    "Update",
    "Walkers",
    "load_metadata",
    "load_model",
    "load_weights",
    "save_model",
]
