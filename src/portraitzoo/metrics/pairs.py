"""Pairs of items that belong together: what was generated, and what it should look like.

Files are paired by their names without suffix, clips in memory by their place in the list. A pair is handed on as one
clip: the generated frames, with the target's as a map.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics import protocols
from portraitzoo.metrics.reconstruction import MASK
from portraitzoo.metrics.side import named
from portraitzoo.metrics.sources import Item, Listing, Need, Source

TARGET = "target"
"""Map of a pair that holds the partner's frames, uint8 [time, height, width, 3]; prefix of its other maps."""
KEYPOINTS = "keypoints"


class PairedSource:
    """Pairs of a generated item and its partner; a long video comes in pieces of one name.

    Args:
        generated: what is judged.
        partners: what each item should look like, frame by frame; or who it should show.
        still: whether the first frame of a partner stands for all frames (a source portrait).

    Raises:
        ZooError: if a side cannot be paired: clips drawn from a model belong to no particular real one.
    """

    kind = "pairs"
    detail = ""

    def __init__(self, generated: Source, partners: Source, still: bool = False) -> None:
        for side in (generated, partners):
            if side.kind in ("model", "subjects"):
                raise ZooError(
                    f"{side.label} cannot be paired: paired metrics compare files of one name, or lists of clips"
                )
        self.label = generated.label
        self.threaded = generated.threaded and partners.threaded
        self.portable = generated.portable and partners.portable
        self._generated, self._partners, self._still = generated, partners, still
        self._pairs: list[tuple[Item, Item]] = []

    def fingerprint(self) -> str:
        """Digest of both sides' digests."""
        text = f"{self._generated.fingerprint()} {self._partners.fingerprint()} {self._still}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """The generated items that have a partner, in order; notes name those of either side that have none.

        They are all that there are, unless ``protocol.clips`` was asked for.

        Raises:
            ZooError: if no item has a partner, two items of a side have one name, or lists differ in length.
        """
        ours, theirs = _Keyed(self._generated, protocol, limit), _Keyed(self._partners, protocol, limit)
        notes = ours.compared(theirs, self._still)
        asked = not protocol.fewer or "clips" in protocol.modified()
        wanted = set([key for key in ours.names if key in theirs.names][: protocol.clips if asked else None])
        self._pairs = []
        for (key, start), item in ours.items.items():
            partner = theirs.items.get((key, 0 if self._still else start))
            self._pairs += [(item, partner)] if partner is not None and key in wanted else []
        items = [Item(item.name, place, item.start, item.count) for place, (item, _) in enumerate(self._pairs)]
        label = self._partners.label
        broken = {f"{label}: {name}": error for name, error in theirs.listing.broken.items()}
        short = [f"{label}: {name}" for name in theirs.listing.short]
        return Listing(items, {**ours.listing.broken, **broken}, [*ours.listing.short, *short], notes)

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """The generated frames with the map ``target``, and of ``maps`` those that a side has (the partner's prefixed).

        All are of the size of the generated frames (of the protocol, if it has one): a partner of another size is
        resized by OpenCV's bilinear rule, as NPVA does, and that is noted. Of pieces of unequal length the common
        frames are taken.

        Raises:
            MediaError: if a side is damaged.
        """
        first, second = self._pairs[item.place]
        ours = self._generated.load(first, "images", protocol, maps)
        theirs = self._partners.load(second, "images", protocol, maps)
        height, width = (protocol.size, protocol.size) if protocol.size else tuple(ours.frames.shape[1:3])
        differ = not protocol.size and tuple(theirs.frames.shape[1:3]) != (height, width)
        ours, theirs = _fitted(ours, height, width), _fitted(theirs, height, width)
        targets = {TARGET: theirs.frames} | {f"{TARGET}_{name}": value for name, value in theirs.maps.items()}
        if self._still:
            targets = {name: values[:1].expand(len(ours), *values.shape[1:]) for name, values in targets.items()}
        count = min(len(ours), len(targets[TARGET]))
        cut = {name: values[:count] for name, values in (ours.maps | targets).items()}
        alpha = any(clip.info.get("alpha") for clip in (ours, theirs))
        return Clip(frames=ours.frames[:count], fps=ours.fps, maps=cut, info={"alpha": alpha, "resized": differ})


Key = str | int
"""Name without suffix, or place in a list."""


class _Keyed:
    """The items of a side by what pairs them and by their first frame."""

    def __init__(self, side: Source, protocol: protocols.Protocol, limit: int) -> None:
        self.label = side.label
        self.listing = side.listing("images", protocol, limit)
        self.named = side.kind != "clips"
        self.items: dict[tuple[Key, int], Item] = {}
        self.names: dict[Key, str] = {}
        self.lengths: dict[Key, int] = {}
        for item in self.listing.items:
            key: Key = Path(item.name).stem if self.named else item.place
            start = 0 if side.kind == "images" else item.start
            if (key, start) in self.items:
                raise ZooError(f"{self.label} holds {key} twice: paired metrics tell items by name without suffix")
            self.items[key, start] = item
            self.names[key] = item.name
            self.lengths[key] = self.lengths.get(key, 0) + item.count

    def compared(self, other: _Keyed, still: bool) -> list[str]:
        """What does not fit between this side and another, counted and named."""
        if self.named != other.named or (not self.named and len(self.names) != len(other.names)):
            raise ZooError(
                f"{self.label} ({len(self.names)} items) and {other.label} ({len(other.names)}) cannot be paired: "
                "files are paired by name, clips in memory by their place in lists of one length"
            )
        if not self.names.keys() & other.names.keys():
            first = next(iter(self.names.values()), "an empty side")
            raise ZooError(
                f"{self.label} and {other.label} have no name in common: paired metrics compare files of one name "
                f"({first} has no partner)"
            )
        notes = []
        for side, alone in ((self, self.names.keys() - other.names), (other, other.names.keys() - self.names)):
            if alone:
                names = [name for key, name in side.names.items() if key in alone]
                notes.append(f"{len(alone)} of {side.label} without a partner and left out: {named(names)}")
        unequal = [
            f"{name} ({self.lengths[key]} and {other.lengths[key]} frames)"
            for key, name in self.names.items()
            if not still and other.lengths.get(key, self.lengths[key]) != self.lengths[key]
        ]
        if unequal:
            notes.append(f"{len(unequal)} pairs of unequal length, only common frames compared: {named(unequal)}")
        return notes


def _fitted(clip: Clip, height: int, width: int) -> Clip:
    """The clip at another size: frames and masks by OpenCV's bilinear rule and by nearest pixels, keypoints scaled."""
    old_height, old_width = clip.frames.shape[1:3]
    if (old_height, old_width) == (height, width):
        return clip
    maps = dict(clip.maps)
    if MASK in maps:
        masks = [cv2.resize(m, (width, height), interpolation=cv2.INTER_NEAREST) for m in maps[MASK].float().numpy()]
        maps[MASK] = torch.from_numpy(np.stack(masks))
    if KEYPOINTS in maps:
        points = maps[KEYPOINTS].clone()
        points[..., 0] *= width / old_width
        points[..., 1] *= height / old_height
        maps[KEYPOINTS] = points
    frames = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in clip.frames.numpy()]
    return dataclasses.replace(clip, frames=torch.from_numpy(np.stack(frames)), cameras=None, maps=maps)


def masked(clip: Clip) -> Tensor | None:
    """Pixels of a pair that count on both sides, bool [time, height, width]; None if neither side has a mask.

    Raises:
        MediaError: if a mask is not of the frames' size.
    """
    found = None
    for name in (MASK, f"{TARGET}_{MASK}"):
        if name in clip.maps:
            mask = clip.maps[name] > 0
            if mask.shape != clip.frames.shape[:3]:
                raise MediaError(f"a mask of shape {list(mask.shape)} does not fit frames {list(clip.frames.shape)}")
            found = mask if found is None else found & mask
    return found
