"""One process or several under torchrun: who am I, which device, and means over processes.

The same script runs as ``python script.py`` and ``torchrun --nproc_per_node=2 script.py``.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sciflow.train.batch import map_batch


@dataclass(frozen=True)
class Engine:
    """The place of this process among all processes of a run.

    Attributes:
        rank: number of this process, 0 for the one that writes files.
        world: number of processes.
        device: the device of this process.
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def start(cls, device: str = "auto") -> Engine:
        """Join the processes that torchrun started, or be the only one.

        The process group (nccl on CUDA, gloo elsewhere) stays until the program ends, since one
        program may train several times.

        Args:
            device: ``"auto"`` (CUDA where there is one, otherwise the CPU) or a torch device;
                under torchrun ``"cuda"`` is the device of the local rank.

        Raises:
            ValueError: torch knows no such device, or this machine has none.
        """
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            place = torch.device(kind if device == "auto" else device)
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"device must be one of this machine; got {device!r}: {reason}"
            ) from error
        launched = dist.is_available() and (
            dist.is_initialized() or dist.is_torchelastic_launched()
        )
        if not launched:
            return cls(0, 1, place)
        if place.type == "cuda" and place.index is None:
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if place.type == "cuda":
            torch.cuda.set_device(place)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size(), place)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, logs and progress."""
        return self.rank == 0

    def generator(self, seed: int, device: torch.device, *stream: int) -> torch.Generator:
        """A generator on ``device``: ``manual_seed(seed)``, or another ``stream`` of that seed.

        Streams are hashed: by ``seed + rank``, seed 0 on rank 1 would repeat seed 1 on rank 0.
        """
        if stream:
            seed = int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0])
        return torch.Generator(device).manual_seed(seed)

    def shard(self, batch: Any) -> Any:
        """The slice of this process along the sample axis; tensors of shape () pass whole.

        Raises:
            ValueError: the shares would be unequal, and the mean of their means not the mean.
        """
        if self.world == 1:
            return batch

        def slice_of(x: Tensor) -> Tensor:
            if x.ndim == 0:
                return x
            if len(x) % self.world:
                raise ValueError(
                    f"a batch of {len(x)} samples cannot be shared evenly by {self.world} "
                    f"processes; choose a batch_size that is a multiple of {self.world}"
                )
            share = len(x) // self.world
            return x[self.rank * share : (self.rank + 1) * share]

        return map_batch(slice_of, batch)

    def mean_(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their means over processes, in one exchange of a flat buffer."""
        if self.world == 1 or not tensors:
            return
        real = [
            torch.view_as_real(x) if x.is_complex() else x for x in map(Tensor.detach, tensors)
        ]
        flat = torch.cat([x.reshape(-1) for x in real])
        dist.all_reduce(flat)
        flat /= self.world
        for x, mean in zip(real, flat.split([x.numel() for x in real]), strict=True):
            x.copy_(mean.view_as(x))

    def concat(self, x: Tensor) -> Tensor:
        """The rows of all processes, in order of rank; they may hold unequal numbers of rows."""
        if self.world == 1:
            return x
        counts = self.gather(len(x))
        padded = x.new_zeros(max(counts), *x.shape[1:])
        padded[: len(x)] = x.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def broadcast_(self, module: nn.Module) -> None:
        """Give all processes the parameters and buffers of process 0."""
        if self.world > 1:
            for x in (*module.parameters(), *module.buffers()):
                dist.broadcast(x.detach(), src=0)

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, in order of rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
