"""The report as one HTML page that needs no other file, no script and no network."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

from portraitzoo.metrics.plots import histogram, line_chart, scatter
from portraitzoo.metrics.report import Report, counts, number, spread
from portraitzoo.metrics.results import Extreme, Result
from portraitzoo.metrics.side import Side


def page(report: Report) -> str:
    """The whole page."""
    template = Template(resources.files("portraitzoo.metrics").joinpath("report_page.html").read_text(encoding="utf-8"))
    sides = [side for side in (report.generated, report.real) if side is not None]
    title = report.generated.label + (f" against {report.real.label}" if report.real is not None else "")
    return template.substitute(
        title=escape(f"{title}: {', '.join(result.title for result in report.results)}"),
        heading=_heading(report),
        subtitle=_subtitle(report),
        banner=_banner(report),
        cards="\n".join(_card(result, report.notes(result)) for result in report.results),
        warnings=_section("Warnings", f"<ul>{''.join(_tag('li', text) for text in report.warnings)}</ul>")
        if report.warnings
        else "",
        samples=_samples(report),
        extremes=_extremes(report.results),
        figures=_figures(report.results),
        protocol=_protocol(report),
        networks=_networks(report.results),
        sides="".join(_side(side, name) for side, name in zip(sides, ("generated", "real"), strict=False)),
        footer=_footer(report),
    )


def _tag(name: str, text: str, css: str = "") -> str:
    attribute = f' class="{css}"' if css else ""
    return f"<{name}{attribute}>{escape(text)}</{name}>"


def _section(title: str, content: str) -> str:
    return f"<section>{_tag('h2', title)}{content}</section>"


def _row(head: str, cell: str, css: str = "") -> str:
    """A table row; ``cell`` is HTML already."""
    attribute = f' class="{css}"' if css else ""
    return f"<tr>{_tag('th', head)}<td{attribute}>{cell}</td></tr>\n"


def _heading(report: Report) -> str:
    heading = _tag("span", report.generated.label, "side-generated")
    if report.real is not None:
        heading += f' <span class="soft">against</span> {_tag("span", report.real.label, "side-real")}'
    return heading


def _subtitle(report: Report) -> str:
    changed = " (modified)" if report.protocol.modified() else ""
    return escape(f"Protocol {report.protocol.name}{changed}: {report.protocol.description}.")


def _banner(report: Report) -> str:
    if report.comparable:
        return ""
    return (
        '<p class="banner"><b>Not comparable.</b> The feature networks have random weights: the numbers say which of '
        "two sets is nearer, and nothing beside numbers of other networks or in papers.</p>"
    )


def _card(result: Result, notes: Sequence[str]) -> str:
    value, _, std = number(result).partition(" ± ")
    small = f" <small>± {escape(std)}</small>" if std else ""
    better = "higher is better" if result.higher_is_better else "lower is better"
    return (
        f'<div class="card">{_tag("div", result.title, "name")}<div class="value">{escape(value)}{small}</div>'
        f"{_tag('div', spread(result), 'count')}{_tag('div', f'{better}; {counts(result)}', 'count')}"
        f"{''.join(_tag('span', note, 'tag') for note in notes)}</div>"
    )


def _samples(report: Report) -> str:
    named = [("generated", report.generated)] + ([("real", report.real)] if report.real is not None else [])
    figures = []
    for unit in ("clips", "images", "subjects"):
        for name, side in named:
            pictures = side.previews.get(unit)
            if not pictures:
                continue
            what = "heads: front, side, side, front" if unit == "subjects" else unit
            strips = "".join(
                _strip(picture, f"sample {index} of the {name} side") for index, picture in enumerate(pictures)
            )
            caption = f'<figcaption><b class="side-{name}">{name.capitalize()}</b> {what}</figcaption>'
            figures.append(f"<figure>{caption}{strips}</figure>")
    return _section("Samples", f'<div class="figures">{"".join(figures)}</div>') if figures else ""


def _strip(picture: bytes, description: str) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    return f'<img class="strip" alt="{escape(description, quote=True)}" src="{source}">'


def _extremes(results: Sequence[Result]) -> str:
    figures = [
        figure for result in results for end in ("worst", "best") if (figure := _end(result, end, result.extremes))
    ]
    return _section("Worst and best", f'<div class="figures">{"".join(figures)}</div>') if figures else ""


def _end(result: Result, end: str, extremes: Sequence[Extreme]) -> str:
    """The items at one end; those of a distance between sets each beside the nearest real one."""
    chosen = [extreme for extreme in extremes if extreme.end == end]
    if not chosen:
        return ""
    if any(extreme.real_item is not None for extreme in chosen):
        where = "farthest from" if end == "worst" else "nearest to"
        caption = f"generated {where} the real ones in feature space, each with the nearest real one under it"
    else:
        caption = f"{end} by value"
    shown = ""
    for extreme in chosen:
        what = "distance " if extreme.real_item is not None and result.real is not None else ""
        said = f"{extreme.name}: {what}{extreme.value:.4g}"
        shown += _tag("p", said, "strip-name side-generated")
        shown += _strip(extreme.picture, f"{end} of {result.title}, {said}") if extreme.picture else ""
        if extreme.real_name is not None:
            shown += _tag("p", extreme.real_name, "strip-name side-real")
            if extreme.real_picture:
                shown += _strip(extreme.real_picture, f"nearest real item, {extreme.real_name}")
    return f"<figure><figcaption>{_tag('b', result.title)}: {escape(caption)}</figcaption>{shown}</figure>"


def _figures(results: Sequence[Result]) -> str:
    figures = []
    for result in results:
        title = result.title + ("" if result.comparable else " (not comparable)")
        if result.plots.get("plane"):
            plane = result.plots["plane"]
            shares = [f"principal direction {axis + 1}, {share:.0%}" for axis, share in enumerate(plane["explained"])]
            figures.append(
                _figure(
                    title,
                    'features on the plane where both sets vary most, <span class="side-generated">generated</span> '
                    'and <span class="side-real">real</span>',
                    scatter(plane["generated"], plane["real"], *shares),
                )
            )
        if len(result.plots.get("convergence", [])) > 1:
            curve = result.plots["convergence"]
            sides = f"{result.unit} on each side" if result.plots.get("plane") else f"generated {result.unit}"
            band = [point[2:] for point in curve] if all(low is not None for _, _, low, _ in curve) else []
            chart = line_chart([point[:2] for point in curve], sides, result.title, band)
            shaded = ", with its interval" if band else ""
            said = f"as the number of samples grows{shaded}: a curve that still falls is bias"
            figures.append(_figure(title, said, chart))
        if result.plots.get("values"):
            chart = histogram(result.plots["values"], result.title, result.unit)
            figures.append(_figure(title, f"values of {len(result.plots['values'])} {result.unit}", chart))
    if not figures:
        return ""
    return _section("A closer look", f'<div class="figures">{"".join(figures)}</div>{_intervals(results)}')


def _figure(title: str, caption: str, chart: str) -> str:
    return f"<figure><figcaption>{_tag('b', title)}: {caption}</figcaption>{chart}</figure>"


def _protocol(report: Report) -> str:
    modified = report.protocol.modified()
    rows = []
    for name, value in dataclasses.asdict(report.protocol).items():
        text = _tag("code", _spelled(value))
        if name in modified:
            text += escape(f" instead of the published {_spelled(modified[name][0])}")
        rows.append(_row(name.replace("_", " "), text, "changed" if name in modified else ""))
    return "".join(rows)


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return "; ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)


def _intervals(results: Sequence[Result]) -> str:
    """How the intervals were made, said once."""
    found = [result.interval for result in results if result.interval is not None]
    if not found:
        return ""
    methods = "; ".join(dict.fromkeys(map(str, found)))
    text = (
        f"Intervals hold the expected value at this number of samples in {found[0].level:.0%} of repeated experiments: "
        f"{methods}. They tell how far the choice of samples moves a number; frames and windows of one video are drawn "
        "together, and of fewer than ten or so such things the intervals are too narrow. The bias of a distance "
        "that is made from few samples is not in them: the curve shows it."
    )
    return _tag("p", text, "soft")


def _networks(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        if result.network is None:
            rows.append(_row(result.title, "no feature network"))
            continue
        network = result.network
        said = f"{network['name']}, {network['features']} features"
        comparable = "" if network["comparable"] else " " + _tag("span", "not comparable", "tag")
        rows.append(_row(result.title, f"{escape(said)}, sha256 {_tag('code', network['checksum'])}{comparable}"))
    return "".join(rows)


def _side(side: Side, name: str) -> str:
    used = ", ".join(f"{count} of {side.available[unit]} {unit}" for unit, count in side.used.items())
    kinds = ", ".join(f"{count} of {trait}" for trait, count in sorted(side.traits.items(), key=lambda pair: -pair[1]))
    lines = [
        escape(f"{side.label} ({side.kind})"),
        escape(side.detail),
        escape(used),
        escape(kinds),
        f"content {_tag('code', side.fingerprint)}",
        *(escape(f"left out: {reason}") for reason in side.broken.values()),
        *(escape(f"too short: {short}") for short in side.short),
    ]
    return _row(name, "<br>".join(filter(None, lines)))


def _footer(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in report.seconds.items())
    where = report.device + (f", {report.processes} processes" if report.processes > 1 else "")
    return f"{escape(report.created)} on {escape(where)}. {escape(seconds)}. {escape(versions)}."
