"""The processes that evaluate together, when there is more than one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

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

    def owns(self, item: int) -> bool:
        """Whether an item is this process's: items go round, so shares are disjoint and need no padding."""
        return item % self.size == self.rank

    def share(self, items: range) -> list[int]:
        """Those of the items that this process owns."""
        return [item for item in items if self.owns(item)]

    def gather(self, value: T) -> list[T]:
        """The value of every process, in order of rank; all processes must call it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values
