"""DeepQMC, by an interpreter of its own: ``PYTHON deepqmc_peer.py MOLECULE SECONDS SEED BATCHES``.

Prints one line of JSON. Its releases and today's JAX do not fit; these do, in Python 3.11::

    pip install deepqmc==1.2.0 jax==0.4.35 jaxlib==0.4.35 kfac-jax==0.0.6 dm-haiku==0.0.13 \
        hydra-core==1.3.2

The settings are those of its task ``train`` (KFAC, Langevin moves) with its Psiformer in the size
of the comparison, and ten times its default of pretraining steps. The seconds are those of the
training steps alone: neither compilation, nor pretraining, nor equilibration is counted.
"""

import json
import logging
import os
import sys
import tempfile
import time
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import deepqmc  # noqa: F401
import jax
import numpy as np
from deepqmc.app import instantiate_ansatz
from deepqmc.train import train
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

WALKERS, PRETRAINING = 1024, 1000


class OutOfTime(Exception):
    """The seconds are used up."""


class Clock:
    """Ends the training after some CPU seconds; passed as its store of checkpoints."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.began, self.steps = seconds, 0.0, 0
        self.state: Any = None

    def __call__(self, workdir: str) -> "Clock":
        return self

    def update(self, step: int, state: Any, loss: Any = None) -> None:
        """Called before the first step, and after each."""
        self.steps = step
        if step == 1:  # which compiled
            self.began = time.process_time()
        if step and time.process_time() - self.began > self.seconds:
            self.seconds = time.process_time() - self.began
            self.state = jax.tree_util.tree_map(lambda a: a.copy(), state)
            raise OutOfTime

    def close(self) -> None:
        """Nothing is written."""


class Silent:
    """Logs nothing, but keeps the local energies of an evaluation."""

    def __init__(self, keep: bool) -> None:
        self.keep, self.energies = keep, []  # type: ignore[var-annotated]

    def __call__(self, *args: Any, **kwargs: Any) -> "Silent":
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Called after each step, as logger of metrics and of samples."""
        if self.keep and isinstance(args[0], dict):
            self.energies.append(np.asarray(args[0]["local_energy/samples"]).ravel())

    def close(self) -> None:
        """Nothing is open."""


def main(molecule: str, seconds: float, seed: int, batches: int) -> dict[str, Any]:
    began = time.process_time()
    with initialize_config_module("deepqmc.conf", version_base=None):
        config = compose(
            "config",
            [
                "ansatz=psiformer",
                f"hamil/mol={molecule}",
                "task/opt=kfac",
                "ansatz.n_determinants=4",
                "ansatz.omni_factory.embedding_dim=64",
                "ansatz.omni_factory.gnn_factory.n_interactions=2",
            ],
        )
    hamil = instantiate(config.hamil, _convert_="all")
    ansatz = instantiate_ansatz(hamil, instantiate(config.ansatz, _convert_="all"))
    factories = {
        key: instantiate(config.task[key], _convert_="all")
        for key in ("opt", "sampler_factory", "loss_function_factory", "observable_monitors")
    }
    kwargs = instantiate(config.task.pretrain_kwargs, _convert_="all")
    clock, silent, kept = Clock(seconds), Silent(False), Silent(True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(
                hamil, ansatz, **factories, steps=10**6, seed=seed, electron_batch_size=256,
                pretrain_steps=PRETRAINING, pretrain_kwargs=kwargs, workdir=folder,
                chkpt_constructor=clock, metric_logger_constructor=silent,
                h5_logger_constructor=silent,
            )  # fmt: skip
        except OutOfTime:
            trained = time.process_time()
        frozen = clock.state._replace(sampler=None, opt=None)
        factories["opt"] = None
        train(
            hamil, ansatz, **factories, steps=batches, seed=seed + 1,
            electron_batch_size=WALKERS, train_state=frozen, workdir=folder,
            chkpt_constructor=Silent(False), metric_logger_constructor=silent,
            h5_logger_constructor=kept,
        )  # fmt: skip
    energies = np.stack(kept.energies).astype(float)
    walkers = energies.mean(0)
    return {
        "energy": walkers.mean(),
        "error": walkers.std(ddof=1) / len(walkers) ** 0.5,
        "variance": energies.var(),
        "steps": clock.steps,
        "training_cpu_s": clock.seconds,
        "with_setup_cpu_s": trained - began,
        "parameters": sum(a.size for a in jax.tree_util.tree_leaves(clock.state.params)),
    }


if __name__ == "__main__":
    logging.getLogger("deepqmc").setLevel(logging.ERROR)
    name, budget, number, count = sys.argv[1:]
    print(json.dumps(main(name, float(budget), int(number), int(count))))
