"""Clips on their way from a model to files."""

from __future__ import annotations

from pathlib import Path

from portraitzoo.media.clip import Clip


def save_clip(clip: Clip, out: Path) -> list[Path]:
    """Save a clip; where the format has no room for its maps, each becomes a picture of its own beside it.

    Args:
        clip: what to save.
        out: where to; the suffix chooses the format, as in :meth:`Clip.save`.

    Returns:
        What was written.
    """
    files = [clip.save(out)]
    if out.suffix in (".mp4", ".png"):
        files += [clip.picture_of(name).save(out.with_stem(f"{out.stem}-{name}")) for name in clip.maps]
    return files
