"""From a source to features: what measures need of it, and whether it has that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from portraitzoo.errors import ZooError
from portraitzoo.metrics.extremes import strip
from portraitzoo.metrics.measures.base import Measure
from portraitzoo.metrics.passes import Pass, Settings
from portraitzoo.metrics.side import Side
from portraitzoo.metrics.sources import Listing, Need, Source


@dataclass(frozen=True)
class Extraction(Settings):
    """How features of one side are extracted.

    Attributes:
        enough: whether the side may have fewer items than the protocol asks for.
        kept: strips of items by their number, of each source and unit that was passed through.
    """

    enough: bool = False
    kept: dict[tuple[int, Need], Callable[[int], bytes | None]] = field(default_factory=dict, init=False)

    def unit(self, source: Source, measure: Measure | type[Measure]) -> Need:
        """What the source is asked for: FID takes the frames of clips, or images one by one, by the protocol."""
        need = measure.stage_type.need
        single = self.protocol.fid_frames == "single" or source.kind == "images"
        return "clips" if need == "images" and not single else need

    def limit(self, unit: Need) -> int | None:
        """Items that the protocol wants; None for all that there are."""
        wanted: dict[Need, int | None] = {
            "clips": self.protocol.clips,
            "images": self.protocol.images,
            "subjects": self.protocol.subjects,
            "pairs": None,
            "paths-w": self.protocol.paths,
            "paths-z": self.protocol.paths,
        }
        return wanted[unit]

    def check(self, source: Source, measures: Sequence[type[Measure]]) -> None:
        """Find out, before any work, whether a source serves all measures.

        Raises:
            ZooError: if not; the message says what it lacks.
        """
        for unit in sorted({self.unit(source, measure) for measure in measures}):
            self.listing(source, unit)

    def run(self, source: Source, measures: Sequence[Measure], side: Side | None = None) -> Side:
        """Features of one side for all measures; each item is loaded once.

        With several processes each takes its share, and the result holds those of all.

        Args:
            source: where the items come from.
            measures: what is taken from them.
            side: what was gathered there before, to be added to.

        Raises:
            ZooError: if a measure cannot be served, an item is broken and ``strict``, features are not finite, or
                there are too few items.
        """
        side = side or Side(source.label, source.kind, source.fingerprint(), source.detail)
        for unit in sorted({self.unit(source, measure) for measure in measures}):
            served = [measure for measure in measures if self.unit(source, measure) == unit]
            taken = Pass(self, source, unit, served, side, self.limit(unit))
            have = taken.run(self.listing(source, unit))
            self.kept[id(source), unit] = taken.picture
            self.check_count(source.label, unit, have, side.short, side.broken)
        return side

    def picture(self, source: Source, unit: Need, number: int) -> tuple[str, bytes]:
        """Name and JPEG strip of one item; it is loaded again unless its strip was kept."""
        item = source.listing(unit, self.protocol, self.limit(unit) or 1).items[number]
        name = f"{item.name}, frame {item.start}" if item.start and source.kind != "images" else item.name
        kept = self.kept.get((id(source), unit), lambda number: None)(number)
        return name, kept or strip(source.load(item, unit, self.protocol, ()))

    def listing(self, source: Source, unit: Need) -> Listing:
        """Items of a source, known to be enough as far as listing can tell."""
        limit = self.limit(unit)
        if limit is None and source.kind == "model":
            raise ZooError(
                f"protocol {self.protocol.name} takes all {unit} that there are, and {source.label} draws without end: "
                "say how many with num_clips (--num-clips N)"
            )
        listing = source.listing(unit, self.protocol, limit or 1)
        if self.strict and listing.broken:
            raise next(iter(listing.broken.values()))
        if self.strict and listing.notes:
            raise ZooError(listing.notes[0])
        count = sum(item.count for item in listing.items)
        self.check_count(source.label, unit, count, listing.short, listing.broken)
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
                f"add some, ask for fewer with num_clips (--num-clips {count}), or allow it (--fewer)"
            )
