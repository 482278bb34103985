"""Two reports side by side, where they may stand side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from portraitzoo.errors import ZooError
from portraitzoo.metrics import bootstrap
from portraitzoo.metrics.report import REPORT, Report, read_report

FREE_FIELDS = {"description", "remarks", "metrics", "first_seed"}
"""Protocol fields in which comparable reports may differ: what describes, and the seeds that a model is drawn with."""

ADVICE = "measure both by one protocol, on the same real side and with equal counts"


@dataclass(frozen=True)
class Difference:
    """What one metric says of two reports.

    Attributes:
        metric: its name.
        title: its name in tables.
        first: value in the first report.
        second: value in the second.
        difference: second less first.
        low: lower end of the 95 % interval of the difference; None if a report has none.
        high: upper end.
        paired: whether both measured the same items, so that the interval is that of the items' own differences.
        higher_is_better: direction.
    """

    metric: str
    title: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    paired: bool
    higher_is_better: bool

    @property
    def verdict(self) -> Literal["better", "worse", "undecided"]:
        """Whether the second is better, as far as the interval can tell."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "undecided"
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Comparison:
    """Two reports that may be compared, and by how much they differ.

    Attributes:
        first: what the first report measured.
        second: what the second measured.
        protocol: of both.
        differences: one for each metric that both have, in the order of the first.
        notes: what one should know to read them.
    """

    first: str
    second: str
    protocol: str
    differences: list[Difference]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        content = dataclasses.asdict(self)
        for row, difference in zip(content["differences"], self.differences, strict=True):
            row["verdict"] = difference.verdict
        return content

    def __str__(self) -> str:
        heads = ("metric", "first", "second", "second - first", "95 % interval", "second is")
        rows = [heads, *(_cells(difference) for difference in self.differences)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"first:  {self.first}", f"second: {self.second}", f"protocol {self.protocol}", ""]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def compare(first: Report | str | Path, second: Report | str | Path) -> Comparison:
    """Differences between two reports, metric by metric, each with an interval.

    Values are compared only where nothing but the generated side differs. The interval of a difference takes both
    reports as independent; where both measured the same items (pairs, heads) it resamples the items' differences.

    Args:
        first: report, or folder or ``report.json`` of one.
        second: the same.

    Raises:
        ZooError: if a report cannot be read, or the two differ in protocol, network, real side or counts (the message
            says in which field), or have no metric in common.

    Example:
        >>> print(compare("before/", "after/"))  # doctest: +SKIP
    """
    ours, theirs = (_content(report) for report in (first, second))
    refuse_unless_comparable(ours, theirs)
    results = {result["metric"]: result for result in theirs["results"]}
    differences = [
        _difference(result, results[result["metric"]]) for result in ours["results"] if result["metric"] in results
    ]
    return Comparison(
        ours["generated"]["label"],
        theirs["generated"]["label"],
        ours["protocol"]["name"] + (" (modified)" if ours["modified"] else ""),
        differences,
        list(_notes(ours, theirs, differences)),
    )


def refuse_unless_comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Raise ZooError, naming the first field that differs, unless the contents of two reports may be compared."""
    for name, ours, theirs in _deciding(first, second):
        if ours != theirs:
            raise ZooError(f"these reports cannot be compared: {name} is {_shown(ours)} and {_shown(theirs)}; {ADVICE}")
    if not {r["metric"] for r in first["results"]} & {r["metric"] for r in second["results"]}:
        names = [", ".join(r["metric"] for r in content["results"]) or "none" for content in (first, second)]
        raise ZooError(f"these reports have no metric in common: {names[0]} and {names[1]}")


def _deciding(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of every field that must be equal, the most telling first."""
    yield "protocol", first["protocol"]["name"], second["protocol"]["name"]
    fields = [name for name in first["protocol"] | second["protocol"] if name not in FREE_FIELDS]
    for name in fields:
        yield f"protocol field {name}", first["protocol"].get(name), second["protocol"].get(name)
    yield "features", first["features"], second["features"]
    others = {result["metric"]: result for result in second["results"]}
    common = [(result, others[result["metric"]]) for result in first["results"] if result["metric"] in others]
    for ours, theirs in common:
        for key in ("name", "checksum"):
            what = f"the {'network' if key == 'name' else 'checksum of the network'} of {ours['title']}"
            yield what, (ours.get("network") or {}).get(key), (theirs.get("network") or {}).get(key)
        for side in ("generated", "real"):
            yield f"the number of {side} {ours['unit']} of {ours['title']}", ours[side], theirs[side]
    if first["real"] is not None or second["real"] is not None:
        for key in ("label", "fingerprint"):
            here, there = ((content["real"] or {}).get(key) for content in (first, second))
            # The name of a folder may change; its content decides.
            if key == "fingerprint" or here is None or there is None:
                yield f"the real side's {key}", here, there


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> Difference:
    difference = second["value"] - first["value"]
    pairs = [[(name, value) for name, value in result.get("items", [])] for result in (first, second)]
    intervals = [result.get("interval") for result in (first, second)]
    paired = bool(pairs[0]) and [name for name, _ in pairs[0]] == [name for name, _ in pairs[1]]
    low = high = None
    if paired:
        each = np.array([value for _, value in pairs[1]]) - np.array([value for _, value in pairs[0]])
        found = bootstrap.of_mean(difference, each, [name for name, _ in pairs[0]])
        low, high = (found.low, found.high) if found else (None, None)
    elif all(intervals):
        error = float(np.hypot(*(interval["std_error"] for interval in intervals if interval)))
        reach = NormalDist().inv_cdf((1 + bootstrap.LEVEL) / 2) * error
        low, high = difference - reach, difference + reach
    return Difference(
        first["metric"],
        first["title"],
        first["value"],
        second["value"],
        difference,
        low,
        high,
        paired,
        first["higher_is_better"],
    )


def _notes(first: Mapping[str, Any], second: Mapping[str, Any], differences: list[Difference]) -> Iterator[str]:
    if not (first["comparable"] and second["comparable"]):
        yield "random features: the numbers say which of the two is nearer, and nothing beside published ones"
    alone = sorted({r["metric"] for r in first["results"]} ^ {r["metric"] for r in second["results"]})
    if alone:
        yield f"only one of the reports has {', '.join(alone)}"
    if any(not difference.paired and difference.low is not None for difference in differences):
        yield "intervals take the reports as independent; they share the real side, which makes them rather too wide"
    deficient = [
        result["title"] for result in first["results"] if any("rank-deficient" in n for n in result.get("notes", []))
    ]
    if deficient:
        yield f"rank-deficient: {', '.join(deficient)} rest on fewer samples than features and are mostly bias"
    for name in ("torch", "portraitzoo"):
        versions = [content["versions"].get(name) for content in (first, second)]
        if versions[0] != versions[1]:
            yield f"made with {name} {versions[0]} and {versions[1]}"


def _content(report: Report | str | Path) -> Mapping[str, Any]:
    if isinstance(report, Report):
        return json.loads(json.dumps(report.to_dict()))
    path = Path(report)
    return read_report(path / REPORT if path.is_dir() else path)


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)[:24]


def _cells(difference: Difference) -> tuple[str, ...]:
    def shown(value: float) -> str:
        return f"{value:.4g}"

    interval = ""
    if difference.low is not None and difference.high is not None:
        interval = f"{shown(difference.low)} to {shown(difference.high)}" + (" (paired)" if difference.paired else "")
    return (
        f"{difference.title} {'↑' if difference.higher_is_better else '↓'}",
        shown(difference.first),
        shown(difference.second),
        f"{difference.difference:+.4g}",
        interval,
        difference.verdict,
    )
