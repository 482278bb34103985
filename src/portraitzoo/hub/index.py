"""The index: what the zoo knows about every set of weights, as data.

One YAML file per family (``zoo/<family>.yaml``) holds a list of entries. An entry names the class by its dotted path,
the licence, the published results and where the weights come from; no code knows an entry by name. A file looks like

    family: pv3d
    defaults:                        # what every entry below has unless it says otherwise
      task: generate
      cls: portraitzoo.methods.pv3d.model.PV3D
      converter: portraitzoo.methods.pv3d.weights.convert
    entries:
      pv3d-tiny:
        description: one line
        licence: Apache-2.0
        licence_url: https://www.apache.org/licenses/LICENSE-2.0
        origins: [{kind: embedded, filename: weights/pv3d-tiny}]

The environment variable ``PORTRAITZOO_INDEX`` may name further folders of such files (separated as in ``PATH``), so
that a laboratory can list its own weights; an entry there replaces one of the same name.
"""

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from portraitzoo.errors import UnknownEntryError, ZooError
from portraitzoo.files import shipped

KINDS = ("embedded", "hub", "url", "drive", "manual")
FORMATS = ("portraitzoo", "checkpoint", "data")
_DRIVE_URL = "https://drive.usercontent.google.com/download?id={id}&export=download&confirm=t"


@dataclass(frozen=True)
class Origin:
    """Where one file of an entry comes from.

    ``kind`` is one of

    * ``embedded``: a folder in our format that is shipped with the package; ``filename`` is relative to ``zoo/``;
    * ``hub``: ``filename`` in the Hugging Face repository ``repo`` at ``revision``;
    * ``url``: a plain download from ``url`` (GitHub release, Dropbox ...);
    * ``drive``: the Google Drive file ``id``;
    * ``manual``: not downloadable without a person; ``url`` is the page that tells how, and
      ``zoo download NAME --file PATH`` takes the file.

    ``format`` is ``checkpoint`` (a foreign file that the entry's converter reads), ``portraitzoo`` (our own
    ``model.safetensors`` + ``config.json``, used as they are) or ``data`` (the one file of an entry that is no network,
    used as it is; see :func:`portraitzoo.hub.download.fetch_file`). ``size`` is in bytes. ``sha256`` may be the whole
    digest or its first digits (at least eight, as in the file names that torchvision publishes).
    """

    kind: str
    filename: str
    url: str | None = None
    repo: str | None = None
    revision: str | None = None
    id: str | None = None
    format: str = "checkpoint"
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        _require(self.kind in KINDS, f"origin kind {self.kind!r} is none of {', '.join(KINDS)}")
        _require(self.format in FORMATS, f"origin format {self.format!r} is none of {', '.join(FORMATS)}")
        needed = {"embedded": "filename", "hub": "repo", "url": "url", "drive": "id", "manual": "url"}[self.kind]
        _require(getattr(self, needed), f"an origin of kind {self.kind} needs the field {needed!r}")
        if self.sha256 is not None:
            hexadecimal = isinstance(self.sha256, str) and set(self.sha256) <= set("0123456789abcdef")
            _require(hexadecimal and 8 <= len(self.sha256) <= 64, f"sha256 {self.sha256!r} is not 8 to 64 hex digits")
        if self.size is not None:
            _require(isinstance(self.size, int) and self.size > 0, f"size {self.size!r} is not a positive integer")

    @property
    def address(self) -> str:
        """Where a person would look: the url, or ``repo/filename`` on the Hub, or the path inside the package."""
        if self.kind == "hub":
            return f"{self.repo}/{self.filename}"
        if self.kind == "drive":
            return _DRIVE_URL.format(id=self.id)
        return self.url or self.filename


@dataclass(frozen=True)
class Result:
    """One published number: ``metric`` reached ``value`` on ``dataset``, as printed in ``source``."""

    metric: str
    value: float
    dataset: str
    source: str


@dataclass(frozen=True)
class Entry:
    """One set of weights.

    ``cls`` is the dotted path of the class that :func:`portraitzoo.hub.loading.load` builds (None for data that is no
    network, such as saved statistics); ``converter`` the dotted path of the function that maps a foreign checkpoint to
    a :class:`portraitzoo.hub.conversion.Conversion`. ``config`` holds settings that the foreign file does not tell (a
    rendering resolution, say) and overrides what the converter found. ``task`` says what the model does: ``generate``,
    ``animate``, ``render``, ``features``, ``statistics`` or ``parameters``. ``origins`` are the files,
    usually one; the state dicts of several are merged before conversion.
    """

    name: str
    family: str
    task: str
    description: str
    licence: str
    licence_url: str
    origins: tuple[Origin, ...]
    cls: str | None = None
    converter: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[Result, ...] = ()
    paper: str | None = None
    notes: str | None = None

    def __post_init__(self) -> None:
        _require(len(self.origins) > 0, "an entry needs at least one origin")
        foreign = any(origin.format == "checkpoint" for origin in self.origins)
        _require(self.converter is not None or not foreign, "a foreign checkpoint needs the field 'converter'")

    @property
    def embedded(self) -> bool:
        """Whether the weights travel with the package, so that nothing need be fetched."""
        return all(origin.kind == "embedded" for origin in self.origins)

    @property
    def expected_files(self) -> tuple[str, ...]:
        """Names of the files that ``zoo download NAME --file PATH`` takes."""
        return tuple(Path(origin.filename).name for origin in self.origins if origin.kind != "embedded")


def list_models(family: str | None = None, *, index: str | Path | None = None) -> list[Entry]:
    """All entries, or those of one ``family``, in the order of the index.

    Args:
        family: ``pv3d``, ``metrics`` ...; None for all.
        index: folder of YAML files to read instead of the shipped index and ``PORTRAITZOO_INDEX``.

    Raises:
        UnknownEntryError: if no entry is of that family; the message names the families.
        ZooError: if a YAML file is not as described above; the message names file, entry and field.
    """
    entries = list(_entries(index).values())
    if family is None:
        return entries
    chosen = [entry for entry in entries if entry.family == family]
    if not chosen:
        families = sorted({entry.family for entry in entries})
        raise UnknownEntryError(
            f"unknown family {family!r}{_nearest(family, families)}; families: {', '.join(families)}"
        )
    return chosen


def get_entry(name: str, *, index: str | Path | None = None) -> Entry:
    """The entry called ``name``.

    Raises:
        UnknownEntryError: if there is none; the message suggests the nearest names.
        ZooError: as for :func:`list_models`.
    """
    entries = _entries(index)
    if name not in entries:
        hint = _nearest(name, list(entries)) or "; `zoo list` shows all names"
        raise UnknownEntryError(f"unknown model {name!r}{hint}")
    return entries[name]


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    close = close or [other for other in known if name and name.lower() in other][:3]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _entries(index: str | Path | None) -> dict[str, Entry]:
    if index is not None:
        folders = [Path(index)]
    else:
        further = os.environ.get("PORTRAITZOO_INDEX", "").split(os.pathsep)
        folders = [shipped("zoo"), *(Path(folder) for folder in further if folder)]
    entries: dict[str, Entry] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ZooError(f"the index folder {folder} does not exist: set PORTRAITZOO_INDEX to a folder of YAML files")
        for path in sorted(folder.glob("*.yaml")):
            if path.name == "protocols.yaml":  # of evaluation, see portraitzoo.metrics.protocols
                continue
            entries.update(_read(path, path.stat().st_mtime_ns))
    return entries


@lru_cache(maxsize=64)
def _read(path: Path, modified: int) -> Mapping[str, Entry]:
    """Entries of one file; ``modified`` only makes the cache notice that the file has changed."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ZooError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    place = str(path)
    try:
        _require(isinstance(content, dict), "the file is not a mapping")
        _known(content, {"family", "defaults", "entries"})
        family, defaults, listed = content.get("family"), content.get("defaults") or {}, content.get("entries")
        _require(isinstance(family, str) and family, "the field 'family' is missing")
        _require(isinstance(defaults, dict), "'defaults' is not a mapping")
        _require(isinstance(listed, dict) and listed, "'entries' is not a mapping of names")
        entries = {}
        for name, fields in listed.items():
            place = f"{path}: {name}"
            _require(isinstance(name, str) and isinstance(fields, dict), "not a mapping of fields")
            entries[name] = _entry({**defaults, **fields, "name": name, "family": family})
    except _IndexFieldError as problem:
        raise ZooError(f"{place}: {problem}") from problem
    return entries


def _entry(fields: dict[str, Any]) -> Entry:
    _complete(fields, Entry)
    _require(isinstance(fields["origins"], list), "'origins' is not a list")
    _require(isinstance(fields.get("config", {}), dict), "'config' is not a mapping")
    for text in ("task", "description", "licence", "licence_url"):
        _require(isinstance(fields[text], str) and fields[text], f"{text!r} is empty")
    for path in ("cls", "converter"):
        value = fields.get(path)
        _require(value is None or (isinstance(value, str) and "." in value), f"{path!r} is not a dotted path")
    origins = tuple(_record(Origin, item) for item in fields["origins"])
    published = tuple(_record(Result, item) for item in fields.get("published") or ())
    return Entry(**{**fields, "origins": origins, "published": published})


def _record(cls: type, fields: Any) -> Any:
    _require(isinstance(fields, dict), f"{cls.__name__.lower()} {fields!r} is not a mapping")
    _complete(fields, cls)
    return cls(**fields)


def _complete(fields: Mapping[str, Any], cls: type) -> None:
    described = dataclasses.fields(cls)
    _known(fields, {item.name for item in described})
    for item in described:
        optional = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        _require(optional or item.name in fields, f"the field {item.name!r} is missing")


def _known(fields: Mapping[str, Any], names: set[str]) -> None:
    for name in fields:
        _require(name in names, f"unknown field {name!r}{_nearest(str(name), sorted(names))}")


class _IndexFieldError(ValueError):
    """What is wrong with one entry; the reader of the file adds where."""


def _require(condition: Any, problem: str) -> None:
    if not condition:
        raise _IndexFieldError(problem)
