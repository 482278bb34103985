"""The report of an evaluation: what was measured, exactly how, and what to beware of."""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portraitzoo.errors import ZooError
from portraitzoo.files import replacing
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Result
from portraitzoo.metrics.side import Side

FORMAT, VERSION = "portraitzoo-report", 1
REPORT = "report.json"

# Fields with a default may have come later than a report of the same format.
_RESULT_KEYS = [item.name for item in dataclasses.fields(Result) if item.default is item.default_factory]
_KEYS = ["results", "protocol", "modified", "features", "comparable", "generated", "real", "warnings", "versions"]


@dataclass
class Report:
    """Numbers, and everything that decided them.

    Attributes:
        results: one for each metric, in the order asked for.
        protocol: as used, overrides included.
        generated: what was measured on the generated side.
        real: and on the real side; None if no metric needed one.
        features: ``official`` or ``random``.
        device: where the networks ran.
        processes: how many shared the work.
        seconds: wall time by stage.
        versions: of portraitzoo and the libraries that move numbers.
        created: ISO 8601 time, UTC.
        warnings: counted oddities of the inputs, one sentence each.
    """

    results: list[Result]
    protocol: Protocol
    generated: Side
    real: Side | None
    features: str
    device: str
    processes: int
    seconds: dict[str, float]
    versions: dict[str, str]
    created: str
    warnings: list[str] = field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        """Value by metric name."""
        return {result.metric: result.value for result in self.results}

    @property
    def comparable(self) -> bool:
        """Whether every number was made with the released feature network."""
        return all(result.comparable for result in self.results)

    def notes(self, result: Result) -> list[str]:
        """What stands beside a value everywhere: its own notes, a changed protocol, options of sampling."""
        changed = ["modified protocol"] if self.protocol.modified() else []
        drawn = [self.generated.detail] if self.generated.detail and result.real is not None else []
        return [*result.notes, *changed, *drawn]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it; the same content as ``report.json``."""
        return {
            "format": f"{FORMAT}/{VERSION}",
            "results": [_result(result, self.notes(result)) for result in self.results],
            "protocol": dataclasses.asdict(self.protocol),
            "modified": {k: {"published": a, "used": b} for k, (a, b) in self.protocol.modified().items()},
            "features": self.features,
            "comparable": self.comparable,
            "generated": _side(self.generated),
            "real": None if self.real is None else _side(self.real),
            "seeds": {"first_seed": self.protocol.first_seed, "window_seed": self.protocol.window_seed},
            "warnings": self.warnings,
            "device": self.device,
            "processes": self.processes,
            "seconds": self.seconds,
            "versions": self.versions,
            "created": self.created,
        }

    def markdown(self) -> str:
        """A table of one row, for a README or a model card."""
        heads = [f"{result.title} {'↑' if result.higher_is_better else '↓'}" for result in self.results]
        cells = [
            number(result) + (f" ({'; '.join(self.notes(result))})" if self.notes(result) else "")
            for result in self.results
        ]
        names = [self.generated.label, self.real.label if self.real else "", self.protocol.name]
        rows = [["generated", "real", "protocol", *heads], ["---"] * (3 + len(heads)), [*names, *cells]]
        return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)

    def summary(self) -> str:
        """The numbers and warnings as plain text for a terminal."""
        sides = self.generated.label + (f" against {self.real.label}" if self.real else "")
        modified = ", ".join(f"{name}={used}" for name, (_, used) in self.protocol.modified().items())
        lines = [f"{sides}, protocol {self.protocol.name}{f' modified: {modified}' if modified else ''}"]
        width = max(len(result.title) for result in self.results)
        for result in self.results:
            notes = f"   [{'; '.join(self.notes(result))}]" if self.notes(result) else ""
            arrow = "↑" if result.higher_is_better else "↓"
            told = "; ".join(filter(None, (counts(result), spread(result))))
            lines.append(f"  {result.title:<{width}} {arrow} {number(result):<18} {told}{notes}")
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])

    def __str__(self) -> str:
        return self.summary()

    def save(self, folder: str | Path) -> Path:
        """Write ``report.json``, ``report.md`` and ``report.html`` (one page that needs nothing else) to a folder.

        Raises:
            ZooError: if the place cannot be written.
        """
        from portraitzoo.metrics.report_page import page

        folder = Path(folder)
        check_place(folder)
        texts = {
            REPORT: json.dumps(self.to_dict(), indent=1) + "\n",
            "report.md": self.markdown() + "\n",
            "report.html": page(self),
        }
        with ExitStack() as whole:  # all files or none take their places
            for name, text in texts.items():
                whole.enter_context(replacing(folder / name)).write_text(text, encoding="utf-8")
        return folder


def check_place(folder: str | Path) -> None:
    """Find out, before any work, whether a report can be written there.

    Raises:
        ZooError: if not.
    """
    folder = Path(folder).absolute()
    home = next(path for path in (folder, *folder.parents) if path.exists())
    if not home.is_dir():
        raise ZooError(f"{home} is a file: the report needs a folder")
    if not os.access(home, os.W_OK | os.X_OK):
        raise ZooError(f"cannot write into {home}: choose another place for the report")


def read_report(path: str | Path) -> dict[str, Any]:
    """The content of a ``report.json``, as :meth:`Report.to_dict` gives it.

    Raises:
        ZooError: if there is none, it is damaged or no report, or a newer portraitzoo wrote it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ZooError(f"{path}: there is no such report; `zoo eval ... --out {path.parent}` writes one") from error
    except (OSError, ValueError) as error:
        raise ZooError(f"{path} cannot be read as a report ({' '.join(str(error).split())}): measure again") from error
    name, _, version = str(content.get("format", "") if isinstance(content, dict) else "").partition("/")
    if name != FORMAT or not version.isdigit():
        raise ZooError(f"{path} is no report of `zoo eval`")
    if int(version) > VERSION:
        raise ZooError(
            f"{path} was written by a newer portraitzoo (format {version}, this one reads {VERSION}): upgrade"
        )
    missing = [key for key in _KEYS if key not in content]
    for index, result in enumerate(content["results"] if isinstance(content.get("results"), list) else []):
        missing += [f"results[{index}].{key}" for key in _RESULT_KEYS if key not in result]
    if missing or not isinstance(content["results"], list):
        raise ZooError(f"{path} is a damaged report: it lacks {', '.join(missing[:3]) or 'results'}; measure again")
    return content


def number(result: Result) -> str:
    """Value with as many digits as are worth reading, and the standard deviation if there is one.

    A question mark follows a value in doubt.
    """
    value = _digits(result.value) + ("?" if result.doubt else "")
    return value if result.std is None else f"{value} ± {result.std:.3g}"


def _digits(value: float) -> str:
    digits = 4 if abs(value) < 10 else 2
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.3g}"


def spread(result: Result) -> str:
    """The interval as text, with what it is; empty if there is none."""
    if result.interval is None:
        return ""
    ends = f"{_digits(result.interval.low)} to {_digits(result.interval.high)}"
    return f"{result.interval.level:.0%} interval {ends}"


def counts(result: Result) -> str:
    """How many items the value rests on."""
    unit = result.unit.removesuffix("s") if result.generated == 1 else result.unit
    if result.real is None:
        return f"{result.generated} {unit}"
    if result.real == result.generated:
        return f"{result.generated} {unit} each"
    return f"{result.generated} generated, {result.real} real {result.unit}"


def _result(result: Result, notes: list[str]) -> dict[str, Any]:
    content = dataclasses.asdict(result)
    content["notes"] = notes
    for extreme in content["extremes"]:
        del extreme["picture"], extreme["real_picture"]  # the page has them
    content["comparable"] = result.comparable
    return content


def _side(side: Side) -> dict[str, Any]:
    shown = {f.name: getattr(side, f.name) for f in dataclasses.fields(side)}
    return {name: value for name, value in shown.items() if name not in ("gathered", "previews")}
