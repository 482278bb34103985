"""Model cards: the README.md by which a folder of weights explains itself on the Hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from huggingface_hub import ModelCardData

# Identifiers that the Hub knows, by the name under which the index and users write the licence.
_KNOWN_LICENCES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "bsd-2-clause": "bsd-2-clause",
    "bsd-3-clause": "bsd-3-clause",
    "cc0-1.0": "cc0-1.0",
    "cc-by-4.0": "cc-by-4.0",
    "cc-by-sa-4.0": "cc-by-sa-4.0",
    "cc-by-nc-4.0": "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0": "cc-by-nc-sa-4.0",
}

_USE = """```python
import portraitzoo as pz

generator = pz.load("path/to/this/folder")
clip = generator.sample(seed=0)
clip.save("portrait.mp4")
```"""


@dataclass(frozen=True)
class Card:
    """What a card tells.

    Attributes:
        title: heading, usually the model's name.
        family: ``pv3d`` ...
        description: what the model is, one or more sentences.
        licence: its name.
        licence_url: where it is written.
        facts: what the weights come from (recipe, data, updates ...): label -> text.
        config: the network's sizes.
        metrics: Markdown of an evaluation's table; None if nothing was measured.
        samples: paths of pictures in the folder.
        notes: further sentences, one paragraph each.
    """

    title: str
    family: str
    description: str
    licence: str
    licence_url: str | None
    facts: Mapping[str, str]
    config: Mapping[str, object]
    metrics: str | None = None
    samples: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def front_matter(self) -> str:
        """The YAML block by which the Hub files the model."""
        known = _KNOWN_LICENCES.get(self.licence.lower())
        data = ModelCardData(
            library_name="portraitzoo",
            tags=["portraitzoo", self.family, "3d-aware", "portrait", "video-generation"],
            license=known or "other",
            license_name=None if known else _slug(self.licence),
            license_link=None if known else self.licence_url,
        )
        return f"---\n{data.to_yaml()}\n---\n"

    def markdown(self) -> str:
        """The whole README.md."""
        where = f" ({self.licence_url})" if self.licence_url else ""
        parts = [
            f"# {self.title}",
            self.description,
            *self.notes,
            *(f"![samples]({path})" for path in self.samples),
            "## Use",
            _USE,
            "## Where the weights come from",
            _table("", "", self.facts),
            "## Measured",
            self.metrics or "Nothing was measured; `zoo eval` does.",
            "## Network",
            _table("setting", "value", self.config),
            "## Licence",
            f"{self.licence}{where}. It binds whoever uses these weights, or weights trained from them.",
        ]
        return self.front_matter() + "\n" + "\n\n".join(part.strip() for part in parts if part) + "\n"


def _slug(name: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()
    return "-".join(words)[:64]


def _table(left: str, right: str, rows: Mapping[str, object]) -> str:
    return "\n".join([f"| {left} | {right} |", "|---|---|", *(f"| {_cell(k)} | {_cell(v)} |" for k, v in rows.items())])


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", r"\|").split())
