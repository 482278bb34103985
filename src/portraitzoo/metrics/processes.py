"""The processes that evaluate together, when there is more than one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from portraitzoo.errors import ZooError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those of ``torch.distributed`` (one, if no process group is up).

    Attributes:
        rank: number of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Processes:
        """The process group that Lightning or torchrun has set up."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def owner(self, number: int) -> int:
        """Rank of the process that does piece ``number`` of the work: pieces go round, without padding."""
        return number % self.size

    def gather(self, value: T) -> list[T]:
        """The value of every process, in order of rank; all processes must call it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def launched(devices: int = 1, nodes: int = 1, device: str | None = None) -> Iterator[torch.device | None]:
    """Processes that run the rest of the program side by side, started by Lightning, torchrun or SLURM.

    With ``devices`` above 1 Lightning starts this program again for each further device; under torchrun and SLURM the
    processes are there already. All but the first are silent about errors that the first one tells.

    Args:
        devices: processes on this machine, each with a GPU of its own (without GPUs: CPU processes).
        nodes: machines; start the program on each of them, as Lightning's guide to clusters tells.
        device: ``cpu`` keeps off the GPUs.

    Yields:
        The device of this process; None if it is alone and may choose.

    Raises:
        ZooError: if there are not that many devices.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if devices < 1 or nodes < 1:
        raise ZooError(f"an evaluation needs 1 or more devices and nodes, not {devices} and {nodes}")
    if devices * nodes == 1 and world == 1:
        yield None
        return
    if devices * nodes == 1:
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        nodes = world // devices
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    gpus = torch.cuda.device_count() if device is None or device.startswith("cuda") else 0
    if gpus and devices > gpus:
        raise ZooError(f"{devices} devices were asked for and this machine has {gpus}: ask for fewer, or --device cpu")
    # Rows of features travel, which lie in main memory: gloo serves GPUs as well.
    fabric = Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy(process_group_backend="gloo"),
    )
    fabric.launch()
    try:
        yield fabric.device
    except ZooError as error:
        if fabric.global_rank > 0:
            raise SystemExit(1) from error
        raise
    finally:
        dist.destroy_process_group()
