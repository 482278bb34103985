"""One side of an evaluation after it was measured: features, counts, and what was odd about the items."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Gathered
from portraitzoo.metrics.sources import Need


@dataclass
class Side:
    """What was gathered from one side.

    Attributes:
        label: name of the source.
        kind: kind of the source.
        fingerprint: digest of its content.
        detail: how it was drawn from, where that is not the default.
        used: number of clips, images and subjects that were measured.
        available: number of those that the source lists.
        broken: item name to reason, of those that could not be read.
        short: names of videos with too few frames.
        notes: what was odd while listing the items, counted and named.
        traits: how often each size, frame rate and kind of picture was seen, e.g. ``{"512x512": 64, "25 fps": 64}``.
        gathered: features by metric name.
        previews: JPEG strips of the first items, for clips or images and for subjects.
        rebuilt: damaged cache shards that were computed again.
    """

    label: str
    kind: str
    fingerprint: str
    detail: str = ""
    used: dict[Need, int] = field(default_factory=dict)
    available: dict[Need, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    traits: dict[str, int] = field(default_factory=dict)
    gathered: dict[str, Gathered] = field(default_factory=dict)
    previews: dict[Need, list[bytes]] = field(default_factory=dict)
    rebuilt: int = 0

    def warnings(self, protocol: Protocol) -> list[str]:
        """What was odd about the items, counted and named."""
        found = list(self.notes)
        if self.broken:
            found.append(f"{len(self.broken)} unreadable and left out: {named(self.broken)}")
        if self.short:
            found.append(f"{len(self.short)} shorter than {protocol.span} frames and left out: {named(self.short)}")
        sizes = {trait: count for trait, count in self.traits.items() if "x" in trait}
        if len(sizes) > 1:
            found.append(f"mixed resolutions: {_counted(sizes)}")
        rates = {trait: count for trait, count in self.traits.items() if trait.endswith(" fps")}
        if protocol.fps is not None and set(rates) - {f"{protocol.fps:g} fps"}:
            done = "the nearest frames taken" if protocol.resample_fps else "frames taken as they are"
            found.append(f"{_counted(rates)}, the protocol supposes {protocol.fps:g} fps: {done}")
        if self.traits.get("grey"):
            found.append(f"{self.traits['grey']} grey: repeated to three channels")
        if self.traits.get("resized"):
            found.append(f"{self.traits['resized']} with a target of another size: it was resized")
        if self.traits.get("alpha"):
            found.append(f"{self.traits['alpha']} with an alpha channel: it was dropped")
        limits: dict[Need, int | None] = {
            "clips": protocol.clips,
            "images": protocol.images,
            "subjects": protocol.subjects,
        }
        for unit, limit in limits.items():
            asked = not protocol.fewer or unit in protocol.modified()
            if asked and limit is not None and unit in self.used and self.used[unit] < limit:
                found.append(f"{self.used[unit]} {unit}, asked were {limit}")
        if self.rebuilt:
            found.append(f"{self.rebuilt} damaged cache files were thrown away and computed again")
        return [f"{self.label}: {text}" for text in found]


def named(names: Collection[str], most: int = 3) -> str:
    """The first few names of a list, and how many more there are."""
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _counted(traits: Mapping[str, int]) -> str:
    ordered = sorted(traits.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{count} of {trait}" for trait, count in ordered[:4]) + (" ..." if len(ordered) > 4 else "")
