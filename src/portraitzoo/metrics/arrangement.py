"""What each measure looks at: the generated side itself, pairs that it forms with another side, or paths of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from portraitzoo.errors import ZooError
from portraitzoo.metrics.measures.base import Measure
from portraitzoo.metrics.pairs import PairedSource
from portraitzoo.metrics.paths import PathSource
from portraitzoo.metrics.sources import Source

M = TypeVar("M", Measure, type[Measure])


class Arrangement:
    """The sources that measures of one evaluation share; each is made when the first measure asks for it.

    Args:
        generated: what is judged.
        real: what items are compared with one by one; None if there is nothing.
        references: pictures of the people whom the items should show; None if the real items show them.
    """

    def __init__(self, generated: Source, real: Source | None, references: Source | None) -> None:
        self._generated, self._real, self._references = generated, real, references
        self._made: dict[str, Source] = {}

    def source(self, measure: Measure | type[Measure]) -> Source:
        """What a measure looks at.

        Raises:
            ZooError: if the measure compares pairs and there are none, or a path length is asked of what has none.
        """
        kind = self._kind(measure)
        if kind not in self._made:
            self._made[kind] = self._make(kind, measure.title)
        return self._made[kind]

    def by_reference(self, measure: Measure | type[Measure]) -> bool:
        """Whether a measure compares with the references."""
        return measure.paired and measure.by_reference and self._references is not None

    def groups(self, measures: Sequence[M]) -> list[tuple[Source, list[M]]]:
        """Measures together that look at one source, the generated side first."""
        found: dict[int, tuple[Source, list[M]]] = {}
        for measure in measures:
            source = self.source(measure)
            found.setdefault(id(source), (source, []))[1].append(measure)
        return sorted(found.values(), key=lambda group: group[0] is not self._generated)

    def _kind(self, measure: Measure | type[Measure]) -> str:
        if measure.paired:
            return "references" if self.by_reference(measure) else "pairs"
        return "paths" if measure.stage_type.need in ("paths-w", "paths-z") else "generated"

    def _make(self, kind: str, title: str) -> Source:
        if kind == "generated":
            return self._generated
        if kind == "paths":
            return PathSource(self._generated)
        if kind == "references":
            assert self._references is not None
            return PairedSource(self._generated, self._references, still=True)
        if self._real is None:
            raise ZooError(f"{title} compares each item with the one it should be: give the real items too")
        return PairedSource(self._generated, self._real)
