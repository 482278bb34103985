"""One way through the items of a source: load, measure, keep; in order, in groups, and only once.

A group of consecutive items is what one process measures at a time and what goes through a network together. Groups
are the same for one process and for many, so the rows, and every number made of them, are the same to the last bit.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from portraitzoo.errors import ZooError
from portraitzoo.files import replacing
from portraitzoo.metrics.decoding import decoded
from portraitzoo.metrics.extremes import strip
from portraitzoo.metrics.feature_cache import Entry, FeatureCache, digest
from portraitzoo.metrics.measures.base import Measure
from portraitzoo.metrics.preparation import Preparation, Prepared
from portraitzoo.metrics.processes import Processes
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.side import Side
from portraitzoo.metrics.sources import Item, Listing, Need, ShortClipError, Source

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many items are finished, and how many there are."""

PREVIEWS = 4  # samples of a side that the report shows
TRAVELLING = 128 << 20  # bytes of rows that go from process to process at a time


@dataclass(frozen=True)
class Settings:
    """How one side is measured.

    Attributes:
        protocol: as the side follows it.
        batch_size: clips to a forward pass.
        workers: processes or threads that decode.
        cache: folder of all feature caches, or None.
        strict: whether an unreadable item is an error (else it is counted).
        recoded: whether the protocol's compression is for files too (a model's clips are compressed in any case).
        progress: told about every finished item.
    """

    protocol: Protocol
    batch_size: int = 4
    workers: int = 2
    cache: Path | None = None
    strict: bool = False
    recoded: bool = False
    progress: Progress = lambda what, done, total: None


class Pass:
    """One way through the items of a source, for the measures that share them.

    Args:
        settings: how.
        source: where the items come from.
        unit: what they are.
        measures: what is taken from them.
        side: where the findings go.
        limit: items wanted (images, where they are counted); None for all.
    """

    def __init__(
        self, settings: Settings, source: Source, unit: Need, measures: Sequence[Measure], side: Side, limit: int | None
    ) -> None:
        self.settings = settings
        self.source = source
        self.unit = unit
        self.measures = measures
        self.side = side
        self.limit = limit
        # Measures that read the same rows share a stage: each item passes through it once.
        self.stages = list(dict.fromkeys(measure.stage for measure in measures))
        maps = sorted({name for stage in self.stages for name in stage.maps})
        recoded = settings.recoded and source.kind != "model"
        self.preparation = Preparation(source, unit, settings.protocol, maps, recoded)
        self.processes = Processes.current()
        self.finished = 0

    def run(self, listing: Listing) -> int:
        """Measure items in rounds, until there are as many good ones as wanted or none are left.

        Returns:
            How many are good.

        Raises:
            ZooError: if an item is broken and ``strict``, or features are not finite.
        """
        items = list(listing.items)
        total = sum(item.count for item in items)
        wanted = total if self.limit is None else min(self.limit, total)
        self._open_caches(cut=wanted < total and any(item.count > 1 for item in items))
        broken = {name: str(error) for name, error in listing.broken.items()}
        short = list(listing.short)
        owners: dict[int, int] = {}
        have = position = 0
        while have < wanted and position < len(items):
            stop = self._round_end(items, position, wanted - have)
            lost = self._together(items, self._groups(position, stop, owners), wanted)
            for index in sorted(lost):
                del owners[index]
                if isinstance(lost[index], ShortClipError):
                    short.append(items[index].name)
                else:
                    broken[items[index].name] = str(lost[index])
            have += sum(items[index].count for index in range(position, stop) if index not in lost)
            position = stop
        self.side.broken |= broken
        self.side.short += short
        self.side.notes += listing.notes
        self.side.available[self.unit] = total
        self.side.used[self.unit] = have
        if have:
            self._gather(items, owners)
        return have

    def picture(self, index: int) -> bytes | None:
        """JPEG strip of an item, if it was kept."""
        if index not in self.previews and self.pictures is not None and (self.pictures / f"{index}.jpg").is_file():
            return (self.pictures / f"{index}.jpg").read_bytes()
        return self.previews.get(index)

    def _open_caches(self, cut: bool) -> None:
        taken = sampling(self.settings.protocol, self.unit) | {"source": self.source.fingerprint(), "unit": self.unit}
        if cut:
            taken["images"] = self.limit  # the last item gives only some of its images
        if self.source.kind not in ("model", "paths"):
            # What decides how a model draws is nothing to files, whose features then serve more evaluations.
            recoded = self.preparation.recoded and self.settings.protocol.compression != "none"
            free = {"first_seed", "eight_bit", "sampling"} | (set() if recoded else {"compression"})
            taken = {name: value for name, value in taken.items() if name not in free}
        root = self.settings.cache
        self.caches = {stage: FeatureCache(root, taken | stage.key) for stage in self.stages}
        self.pictures = None if root is None else root / digest(taken | {"of": "previews"})
        self.previews: dict[int, bytes] = {}

    def _round_end(self, items: list[Item], position: int, missing: int) -> int:
        """End of the items from ``position`` on that fill what is missing; the last one is cut to fit."""
        for index in range(position, len(items)):
            if items[index].count >= missing:
                items[index] = dataclasses.replace(items[index], count=missing)
                return index + 1
            missing -= items[index].count
        return len(items)

    def _groups(self, start: int, stop: int, owners: dict[int, int]) -> list[range]:
        """This process's groups; ``owners`` learns the rank that does each item."""
        mine = []
        size = self.settings.batch_size
        for number, first in enumerate(range(start, stop, size)):
            group = range(first, min(first + size, stop))
            owner = self.processes.owner(number)
            owners.update(dict.fromkeys(group, owner))
            if owner == self.processes.rank:
                mine.append(group)
        return mine

    def _together(self, items: Sequence[Item], groups: Sequence[range], wanted: int) -> dict[int, ZooError]:
        """The lost items of all processes; a failure of one is raised by all, so that none waits for it for ever."""
        lost: dict[int, ZooError] = {}
        failure: ZooError | None = None
        try:
            lost = self._round(items, groups, wanted)
        except ZooError as error:
            failure = error
        finally:
            for cache in self.caches.values():
                cache.flush()
        outcomes = self.processes.gather((lost, failure))
        for _, failed in outcomes:
            if failed is not None:
                raise failed
        return {index: error for losses, _ in outcomes for index, error in losses.items()}

    def _round(self, items: Sequence[Item], groups: Sequence[range], wanted: int) -> dict[int, ZooError]:
        lost: dict[int, ZooError] = {}
        # A group is measured as a whole, even if only one of its items is not in the cache.
        needed = [group for group in groups if any(i not in cache for i in group for cache in self.caches.values())]
        order = [items[index] for group in needed for index in group]
        everything = sum(items[index].count for group in groups for index in group)
        self._tick(everything - sum(item.count for item in order), wanted)
        with torch.inference_mode(), closing(decoded(self.preparation, order, self.settings.workers)) as loading:
            for group in needed:
                loaded: dict[int, Prepared] = {}
                for index in group:
                    found = next(loading)
                    if isinstance(found, Prepared):
                        loaded[index] = found
                        self._keep_picture(index, found)
                    elif self.settings.strict and not isinstance(found, ShortClipError):
                        raise found
                    else:
                        lost[index] = found
                    self._tick(items[index].count, wanted)
                self._measure(items, loaded)
        return lost

    def _tick(self, count: int, wanted: int) -> None:
        self.finished += count
        if count and self.processes.rank == 0:
            done = min(self.finished * self.processes.size, wanted)
            self.settings.progress(f"{self.unit} of {self.source.label}", done, wanted)

    def _measure(self, items: Sequence[Item], loaded: Mapping[int, Prepared]) -> None:
        """Rows of one group, those of one shape together."""
        for stage, cache in self.caches.items():
            missing = {index for index in loaded if index not in cache}
            if not missing:
                continue
            for indices in _alike(loaded):
                rows = stage.rows([loaded[index] for index in indices])
                for index, features in zip(indices, rows, strict=True):
                    if stage.finite and not np.isfinite(features).all():
                        titles = ", ".join(measure.title for measure in self.measures if measure.stage is stage)
                        raise ZooError(f"{items[index].name} gives {titles} features that are not finite numbers")
                    if index in missing:
                        cache.add(index, Entry(features, loaded[index].traits))

    def _keep_picture(self, index: int, clip: Prepared) -> None:
        # What a model draws is dear: a picture of it must not cost a second draw.
        if index >= PREVIEWS and self.source.threaded:
            return
        self.previews[index] = strip(clip)
        if self.pictures is not None:
            with replacing(self.pictures / f"{index}.jpg") as path:
                path.write_bytes(self.previews[index])

    def _gather(self, items: Sequence[Item], owners: Mapping[int, int]) -> None:
        """Rows of all good items to every process, in the order of the items."""
        seen: Counter[str] = Counter(self.side.traits)
        for number, (stage, cache) in enumerate(self.caches.items()):
            gathered = {measure.name: measure.gatherer() for measure in self.measures if measure.stage is stage}
            for index, entry in self._travelling(cache, owners):
                for rows in gathered.values():
                    rows.add(index, entry.rows, items[index].name)
                if number == 0:
                    seen.update(entry.traits)
            self.side.gathered |= gathered
            self.side.rebuilt += sum(self.processes.gather(cache.rebuilt))
        self.side.traits = dict(seen)
        shown = {i: picture for i in owners if i < PREVIEWS and (picture := self.picture(i))}
        merged = {index: picture for part in self.processes.gather(shown) for index, picture in part.items()}
        self.side.previews[self.unit] = [merged[index] for index in sorted(merged)]

    def _travelling(self, cache: FeatureCache, owners: Mapping[int, int]) -> Iterator[tuple[int, Entry]]:
        """Every good item's entry in order; from process to process so many at a time as fit in ``TRAVELLING``."""
        order = sorted(owners)
        mine = next((cache[index] for index in order if owners[index] == self.processes.rank), None)
        largest = max(self.processes.gather(0 if mine is None else mine.rows.nbytes))
        at_once = max(1, TRAVELLING // max(largest, 1))
        for first in range(0, len(order), at_once):
            part = order[first : first + at_once]
            own = {index: cache[index] for index in part if owners[index] == self.processes.rank}
            entries = {i: entry for entries in self.processes.gather(own) for i, entry in entries.items()}
            for index in part:
                yield index, entries[index]


def sampling(protocol: Protocol, unit: Need) -> dict[str, object]:
    """Protocol fields that decide what the item of a number looks like."""
    frames = ("crop", "size", "resize", "resized", "compression", "eight_bit", "first_seed", "sampling")
    names: Collection[str] = {
        "clips": (*frames, "clip_length", "frame_stride", "windows", "window_seed", "resample_fps", "fps"),
        "images": frames,
        "subjects": ("first_seed", "eight_bit", "yaw"),
        "pairs": ("size", "clip_length", "frame_stride", "windows", "window_seed", "resample_fps", "fps"),
        "paths-w": ("first_seed", "path_epsilon"),
        "paths-z": ("first_seed", "path_epsilon"),
    }[unit]
    return {name: getattr(protocol, name) for name in names if name != "fps" or protocol.resample_fps}


def _alike(loaded: Mapping[int, Prepared]) -> list[list[int]]:
    """Items of one shape together."""
    shapes: dict[object, list[int]] = {}
    for index, clip in loaded.items():
        shapes.setdefault((clip.frames.shape, clip.frames.dtype), []).append(index)
    return list(shapes.values())
