"""From a source to features: load, measure, keep, in order, in parallel, and only once."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from portraitzoo.errors import ZooError
from portraitzoo.files import replacing
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.extremes import strip
from portraitzoo.metrics.feature_cache import Entry, FeatureCache, digest
from portraitzoo.metrics.measures.base import Measure, Stage
from portraitzoo.metrics.processes import Processes
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Gathered
from portraitzoo.metrics.side import Side
from portraitzoo.metrics.sources import Item, Listing, Need, ShortClipError, Source

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many items are finished, and how many there are."""

PREVIEWS = 4  # samples of a side that the report shows


@dataclass(frozen=True)
class Extraction:
    """How features are extracted; the same for both sides.

    Attributes:
        protocol: how clips are taken and resized.
        batch_size: clips to a forward pass.
        workers: threads that decode.
        cache: folder of all feature caches, or None.
        strict: whether an unreadable item is an error (else it is counted).
        enough: whether a side may have fewer items than the protocol asks for.
        progress: told about every finished item.
        kept: strips of items by their number, of each source and unit that was passed through.
    """

    protocol: Protocol
    batch_size: int = 4
    workers: int = 2
    cache: Path | None = None
    strict: bool = False
    enough: bool = False
    progress: Progress = lambda what, done, total: None
    kept: dict[tuple[int, Need], Callable[[int], bytes | None]] = field(default_factory=dict, init=False)

    def unit(self, source: Source, measure: Measure | type[Measure]) -> Need:
        """What the source is asked for: FID takes the frames of clips unless there are only images."""
        need = measure.stage_type.need
        return "clips" if need == "images" and source.kind != "images" else need

    def limit(self, unit: Need) -> int | None:
        """Items that the protocol wants; None for all that there are."""
        return {"clips": self.protocol.clips, "subjects": self.protocol.subjects, "images": None}[unit]

    def check(self, source: Source, measures: Sequence[type[Measure]]) -> None:
        """Find out, before any work, whether a source serves all measures.

        Raises:
            ZooError: if not; the message says what it lacks.
        """
        for unit in {self.unit(source, measure) for measure in measures}:
            self.listing(source, unit)

    def run(self, source: Source, measures: Sequence[Measure]) -> Side:
        """Features of one side for all measures; each item is loaded once.

        With several processes each takes its share, and the result holds those of all.

        Raises:
            ZooError: if a measure cannot be served, an item is broken and ``strict``, features are not finite, or
                there are too few items.
        """
        side = Side(source.label, source.kind, source.fingerprint(), source.detail)
        for unit in sorted({self.unit(source, measure) for measure in measures}):
            served = [measure for measure in measures if self.unit(source, measure) == unit]
            _Pass(self, source, unit, served, side).run(self.listing(source, unit))
        return side

    def picture(self, source: Source, unit: Need, number: int) -> tuple[str, bytes]:
        """Name and JPEG strip of one item; it is loaded again unless its strip was kept."""
        item = source.listing(unit, self.protocol, self.limit(unit) or 1).items[number]
        name = f"{item.name}, frame {item.start}" if item.start else item.name
        kept = self.kept.get((id(source), unit), lambda number: None)(number)
        return name, kept or strip(source.load(item, unit, self.protocol, ()))

    def listing(self, source: Source, unit: Need) -> Listing:
        """Items of a source, known to be enough as far as listing can tell."""
        limit = self.limit(unit)
        listing = source.listing(unit, self.protocol, limit or 1)
        if self.strict and listing.broken:
            raise next(iter(listing.broken.values()))
        self.check_count(source.label, unit, len(listing.items), listing.short, listing.broken)
        return listing

    def check_count(self, label: str, unit: Need, count: int, short: Collection[str], broken: Collection[str]) -> None:
        """Raise ZooError if that many items are fewer than the protocol asks for."""
        limit = self.limit(unit)
        lost = [f"{len(short)} too short" if short else "", f"{len(broken)} unreadable" if broken else ""]
        lost_text = f" ({', '.join(filter(None, lost))})" if short or broken else ""
        if count == 0:
            raise ZooError(f"{label} has no usable {unit}{lost_text}: nothing to measure")
        if limit is not None and count < limit and not self.enough:
            raise ZooError(
                f"{label} has {count} usable {unit}{lost_text}, protocol {self.protocol.name} asks for {limit}: "
                f"add some, or ask for fewer with num_clips (--num-clips {count})"
            )


@dataclass(frozen=True)
class _Loaded:
    """An item as the feature networks get it, and what was noticed before it was resized."""

    clip: Clip
    traits: tuple[str, ...]


class _Pass:
    """One way through the items of a source, for the measures that share them."""

    def __init__(
        self, extraction: Extraction, source: Source, unit: Need, measures: Sequence[Measure], side: Side
    ) -> None:
        self.extraction = extraction
        self.source = source
        self.unit = unit
        self.measures = measures
        self.side = side
        # Measures that read the same rows share a stage: each item passes through it once.
        self.stages = list(dict.fromkeys(measure.stage for measure in measures))
        self.maps = sorted({name for stage in self.stages for name in stage.maps})
        self.processes = Processes.current()
        self.finished = 0
        taken = _sampling(extraction.protocol, unit) | {"source": side.fingerprint, "unit": unit}
        self.caches = {stage: FeatureCache(extraction.cache, taken | stage.key) for stage in self.stages}
        self.pictures = None if extraction.cache is None else extraction.cache / digest(taken | {"of": "previews"})
        self.waiting: dict[Stage, list[tuple[int, _Loaded]]] = {stage: [] for stage in self.stages}
        self.previews: dict[int, bytes] = {}
        extraction.kept[id(source), unit] = self._preview

    def run(self, listing: Listing) -> None:
        """Measure items in rounds, until there are as many good ones as wanted or none are left."""
        total = len(listing.items)
        wanted = min(self.extraction.limit(self.unit) or total, total)
        broken = {name: str(error) for name, error in listing.broken.items()}
        short = list(listing.short)
        good: list[int] = []
        position = 0
        while len(good) < wanted and position < total:
            stop = min(position + wanted - len(good), total)
            mine = self.processes.share(range(position, stop))
            outcome = self._together(listing.items, mine, wanted)
            lost = {index: error for part in outcome for index, error in part.items()}
            for index in sorted(lost):
                name = listing.items[index].name
                if isinstance(lost[index], ShortClipError):
                    short.append(name)
                else:
                    broken[name] = str(lost[index])
            good += [index for index in range(position, stop) if index not in lost]
            position = stop
        self.side.broken |= broken
        self.side.short += short
        self.side.available[self.unit] = total
        self.side.used[self.unit] = len(good)
        self.extraction.check_count(self.source.label, self.unit, len(good), short, broken)
        self._gather(listing.items, good)

    def _together(self, items: Sequence[Item], mine: Sequence[int], wanted: int) -> list[dict[int, ZooError]]:
        """The lost items of every process; a failure of one is raised by all, so that none waits for it for ever."""
        lost: dict[int, ZooError] = {}
        failure: ZooError | None = None
        try:
            lost = self._round(items, mine, wanted)
        except ZooError as error:
            failure = error
        finally:
            for cache in self.caches.values():
                cache.flush()
        outcomes = self.processes.gather((lost, failure))
        for _, failed in outcomes:
            if failed is not None:
                raise failed
        return [losses for losses, _ in outcomes]

    def _round(self, items: Sequence[Item], mine: Sequence[int], wanted: int) -> dict[int, ZooError]:
        lost: dict[int, ZooError] = {}
        needed = [index for index in mine if any(index not in cache for cache in self.caches.values())]
        self._tick(len(mine) - len(needed), wanted)
        with torch.inference_mode():
            for index, loaded in self._loaded(items, needed):
                if isinstance(loaded, _Loaded):
                    self._take(items, index, loaded)
                elif self.extraction.strict and not isinstance(loaded, ShortClipError):
                    raise loaded
                else:
                    lost[index] = loaded
                self._tick(1, wanted)
            for stage in self.stages:
                self._measure(items, stage)
        return lost

    def _tick(self, count: int, wanted: int) -> None:
        self.finished += count
        if count and self.processes.rank == 0:
            done = min(self.finished * self.processes.size, wanted)
            self.extraction.progress(f"{self.unit} of {self.source.label}", done, wanted)

    def _take(self, items: Sequence[Item], index: int, loaded: _Loaded) -> None:
        # What a model draws is dear: a picture of it must not cost a second draw.
        if index < PREVIEWS or not self.source.threaded:
            self._keep_preview(index, loaded.clip)
        for stage in self.stages:
            if index not in self.caches[stage]:
                queue = self.waiting[stage]
                if queue and queue[0][1].clip.frames.shape != loaded.clip.frames.shape:
                    self._measure(items, stage)
                queue.append((index, loaded))
                if len(queue) >= self.extraction.batch_size:
                    self._measure(items, stage)

    def _measure(self, items: Sequence[Item], stage: Stage) -> None:
        queue = self.waiting[stage]
        if not queue:
            return
        rows = stage.rows([loaded.clip for _, loaded in queue])
        for (index, loaded), features in zip(queue, rows, strict=True):
            if stage.finite and not np.isfinite(features).all():
                titles = ", ".join(measure.title for measure in self.measures if measure.stage is stage)
                raise ZooError(f"{items[index].name} gives {titles} features that are not finite numbers")
            self.caches[stage].add(index, Entry(features, loaded.traits))
        queue.clear()

    def _loaded(self, items: Sequence[Item], indices: Sequence[int]) -> Iterator[tuple[int, _Loaded | ZooError]]:
        """Items in order, decoded ahead of their use by threads where the source allows it."""
        if not self.source.threaded:
            for index in indices:
                yield index, self._load(items[index])
            return
        ahead: deque[tuple[int, Future[_Loaded | ZooError]]] = deque()
        remaining = iter(indices)
        with ThreadPoolExecutor(self.extraction.workers) as pool:
            try:
                while True:
                    for index in islice(remaining, 2 * self.extraction.workers - len(ahead)):
                        ahead.append((index, pool.submit(self._load_or_say_why, items[index])))
                    if not ahead:
                        return
                    index, future = ahead.popleft()
                    yield index, future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _load_or_say_why(self, item: Item) -> _Loaded | ZooError:
        try:
            return self._load(item)
        except ZooError as error:
            return error

    def _load(self, item: Item) -> _Loaded:
        clip = self.source.load(item, self.unit, self.extraction.protocol, self.maps)
        for name in self.maps:
            if not torch.isfinite(clip.maps[name]).all():
                raise ZooError(f"the {name} map of {item.name} holds numbers that are not finite")
        size = self.extraction.protocol.size
        resized = clip if size is None or self.unit == "subjects" else _resized(clip, size)
        return _Loaded(resized, _traits(clip))

    def _keep_preview(self, index: int, clip: Clip) -> None:
        self.previews[index] = strip(clip)
        if self.pictures is not None:
            with replacing(self.pictures / f"{index}.jpg") as path:
                path.write_bytes(self.previews[index])

    def _preview(self, index: int) -> bytes | None:
        if index not in self.previews and self.pictures is not None and (self.pictures / f"{index}.jpg").is_file():
            return (self.pictures / f"{index}.jpg").read_bytes()
        return self.previews.get(index)

    def _gather(self, items: Sequence[Item], good: Sequence[int]) -> None:
        """Features of all good items, those of all processes together."""
        mine = [index for index in good if self.processes.owns(index)]
        seen: Counter[str] = Counter()
        for stage, cache in self.caches.items():
            readers = [measure for measure in self.measures if measure.stage is stage]
            gathered = {measure.name: measure.gatherer() for measure in readers}
            seen.clear()
            for index in mine:
                entry = cache[index]
                for rows in gathered.values():
                    rows.add(index, entry.rows, items[index].name)
                seen.update(entry.traits)
            for name, rows in gathered.items():
                self.side.gathered[name] = Gathered.merge(self.processes.gather(rows))
            self.side.rebuilt += cache.rebuilt
        self.side.traits = dict(sum(self.processes.gather(seen), Counter(self.side.traits)))
        shown = {index: picture for index in mine if index < PREVIEWS and (picture := self._preview(index))}
        merged = {index: picture for part in self.processes.gather(shown) for index, picture in part.items()}
        self.side.previews[self.unit] = [merged[index] for index in sorted(merged)]


def _sampling(protocol: Protocol, unit: Need) -> dict[str, object]:
    """Protocol fields that decide what the item of a number looks like."""
    names = {
        "clips": (
            "clip_length",
            "frame_stride",
            "windows",
            "window_seed",
            "size",
            "first_seed",
            "eight_bit",
            "compression",
        ),
        "images": ("size",),
        "subjects": ("first_seed", "eight_bit", "yaw"),
    }[unit]
    return {name: value for name, value in dataclasses.asdict(protocol).items() if name in names}


def _traits(clip: Clip) -> tuple[str, ...]:
    height, width = clip.frames.shape[1:3]
    frame = clip.frames[0]
    traits = [f"{width}x{height}"] + ([f"{clip.fps:g} fps"] if len(clip) > 1 else [])
    if bool((frame[..., 0] == frame[..., 1]).all() and (frame[..., 1] == frame[..., 2]).all()):
        traits.append("grey")
    if clip.info.get("alpha"):
        traits.append("alpha")
    return tuple(traits)


def _resized(clip: Clip, size: int) -> Clip:
    """OpenCV bilinear, as PV3D's reader resizes; a clip of that size is untouched."""
    if tuple(clip.frames.shape[1:3]) == (size, size):
        return clip
    frames = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR) for frame in clip.frames.numpy()]
    return dataclasses.replace(clip, frames=torch.from_numpy(np.stack(frames)), cameras=None, maps={})
