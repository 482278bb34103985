"""From official checkpoint files to folders in our format, by the converter that the index names."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from portraitzoo.errors import CheckpointError, UnknownEntryError
from portraitzoo.files import replacing
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.conversion import Conversion
from portraitzoo.hub.folders import write_folder
from portraitzoo.hub.index import Entry, list_models
from portraitzoo.hub.modules import tensors_of_module
from portraitzoo.hub.records import Record
from portraitzoo.hub.transfer import sha256_of

RECORD = "conversion.json"
STATISTICS = "statistics.npz"


class Statistics(Protocol):
    """What the converter of an entry of statistics returns: something that writes itself to an ``.npz`` file."""

    def save(self, path: Path) -> Path:
        """Write the statistics."""


@dataclass(frozen=True)
class Source:
    """One file that was converted: its name, its length in bytes and its sha256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Report:
    """What a conversion wrote.

    ``tensors`` counts them by file; ``dropped`` tells for each official name left out why; ``cls`` is the dotted path
    of the class that the weights belong to.
    """

    family: str
    folder: Path
    cls: str | None
    tensors: Mapping[str, int]
    dropped: Mapping[str, str]
    sources: tuple[Source, ...]

    def __str__(self) -> str:
        files = ", ".join(f"{stem}.safetensors ({count} tensors)" for stem, count in self.tensors.items())
        reasons = sorted({*self.dropped.values()})
        left_out = f"; left out {len(self.dropped)} tensors: {'; '.join(reasons)}" if reasons else ""
        return f"{self.folder}: {files}{left_out}"


def convert(family: str, source: str | Path, out: str | Path) -> Report:
    """Convert an official checkpoint of ``family`` into a folder that :func:`portraitzoo.load` takes.

    Nothing in the file is executed. Settings that the file does not tell keep the class's defaults.

    Args:
        family: ``pv3d`` ...; or the name of an entry, whose settings are then used as well.
        source: the checkpoint file.
        out: folder to write; it appears complete or not at all.

    Raises:
        UnknownEntryError: for an unknown family; the message names the families.
        CheckpointError: if the file is damaged, hostile, of another family or of another shape.
        ZooError: if the disk is full or ``out`` cannot be written.
    """
    named = [entry for entry in list_models() if entry.name == family]
    candidates = [entry for entry in named or list_models(family) if entry.converter]
    if len({entry.converter for entry in candidates}) != 1:
        names = ", ".join(entry.name for entry in candidates) or "none can be converted"
        raise UnknownEntryError(f"{family!r} has several kinds of weights, name one of its entries: {names}")
    # The embedded entry, whose licence is another, stands first in a family.
    return convert_files(candidates[-1], [Path(source)], Path(out), settings=candidates[-1].config if named else {})


def convert_files(
    entry: Entry, sources: Sequence[Path], out: Path, *, settings: Mapping[str, Any] | None = None
) -> Report:
    """Convert the files of ``entry`` into the folder ``out``.

    Args:
        entry: names the converter and the class.
        sources: its files; the state dicts of several are merged.
        out: folder to write.
        settings: override what the converter finds; None for those of the entry.

    Raises:
        CheckpointError: as :func:`convert`.
        ZooError: as :func:`convert`.
    """
    content = _content(sources)
    converter = dotted(entry.converter or "")
    try:
        converted: Conversion | Statistics = converter(content)
    except CheckpointError as error:
        raise CheckpointError(f"{sources[0].name} cannot be converted to {entry.family}: {error}") from error
    origins = tuple(Source(path.name, path.stat().st_size, sha256_of(path)) for path in sources)
    record = {
        "sources": [asdict(origin) for origin in origins],
        "licence": entry.licence,
        "licence_url": entry.licence_url,
        "dropped": converted.dropped if isinstance(converted, Conversion) else {},
    }
    further = {RECORD: json.dumps(record, indent=2) + "\n"}
    if not isinstance(converted, Conversion):
        with replacing(out) as temporary:
            temporary.mkdir()
            converted.save(temporary / STATISTICS)
            (temporary / RECORD).write_text(further[RECORD], encoding="utf-8")
        return Report(entry.family, out, None, {}, {}, origins)
    config = {**converted.config, **(entry.config if settings is None else settings)}
    write_folder(out, config, converted.tensors, cls=entry.cls, further=further)
    counts = {stem: len(tensors) for stem, tensors in converted.tensors.items()}
    return Report(entry.family, out, entry.cls, counts, converted.dropped, origins)


def dotted(path: str) -> Callable[..., Any]:
    """The object at a dotted path of the index.

    Raises:
        CheckpointError: if there is none; the index is wrong then, or an optional package is missing.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"the index names {path!r}, which cannot be imported ({error})") from error


def _content(sources: Sequence[Path]) -> Mapping[str, Any]:
    merged: dict[str, Any] = {}
    for source in sources:
        content = read_checkpoint(source)
        content = tensors_of_module(content) if isinstance(content, Record) else content
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{source.name} holds a {type(content).__name__}, not a dict of weights")
        if repeated := merged.keys() & content.keys():
            raise CheckpointError(f"{source.name} repeats the name {sorted(map(str, repeated))[0]} of the other file")
        merged |= content
    return merged
