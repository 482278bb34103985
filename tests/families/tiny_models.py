"""A family's tiny model, as the tests of this folder see it."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from portraitzoo.hub.index import Entry


@dataclass(frozen=True)
class Tiny:
    """A tiny entry under test.

    Attributes:
        name: of the entry.
        entry: of the index.
        family: test module of its family (``official/<family>.py``).
        clips: folder of a small training set.
        folder: scratch folder of this test module.
    """

    name: str
    entry: Entry
    family: ModuleType
    clips: Path
    folder: Path
