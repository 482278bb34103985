"""Small charts as inline SVG: no script, no font of their own, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 40

Point = tuple[float, float]
_Scale = Callable[[float], float]


def line_chart(points: Sequence[Point], x_label: str, y_label: str, band: Sequence[Point] = ()) -> str:
    """A curve through ``points`` (x above 0, on a logarithmic axis; y from 0), each with its value as a tooltip.

    Args:
        points: (x, y), rising in x.
        x_label: under the axis.
        y_label: beside the axis.
        band: lower and upper end at each point, drawn as a band behind the curve.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = math.log(min(xs)), math.log(max(xs))
    to_x = _scale(low, high, _LEFT, WIDTH - _RIGHT)
    y_ticks = _ticks(0.0, max(ys + [end for _, end in band]))
    to_y = _scale(0.0, y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    places = [(to_x(math.log(x)), to_y(y)) for x, y in points]
    path = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(places))
    told = [f"{x:g}: {y:.5g}" for x, y in points]
    if band:
        told = [f"{text}, interval {start:.5g} to {end:.5g}" for text, (start, end) in zip(told, band, strict=True)]
    dots = "".join(
        f'<circle class="generated" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(text)}</title></circle>'
        for (x, y), text in zip(places, told, strict=True)
    )
    labelled = xs if len(xs) <= 5 else xs[::2] if len(xs) % 2 else xs[1::2]
    axes = _y_axis(y_ticks, to_y, y_label) + _x_axis([(to_x(math.log(x)), f"{x:g}") for x in labelled], x_label)
    filled = _band([x for x, _ in places], [(to_y(start), to_y(end)) for start, end in band]) if band else ""
    return _svg(axes + filled + f'<path class="curve" d="{path}"/>' + dots, f"{y_label} against {x_label}")


def _band(xs: Sequence[float], ends: Sequence[Point]) -> str:
    """The area between the lower and the upper ends; a bar where there is one point only."""
    if len(xs) == 1:
        xs, ends = [xs[0] - 4, xs[0] + 4], [ends[0], ends[0]]
    corners = [(x, upper) for x, (_, upper) in zip(xs, ends, strict=True)]
    corners += [(x, lower) for x, (lower, _) in zip(xs, ends, strict=True)][::-1]
    return f'<polygon class="band" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>'


def scatter(generated: Sequence[Point], real: Sequence[Point], x_label: str, y_label: str) -> str:
    """Two sets of points on one plane; both axes have one scale, so that distances look as they are."""
    everything = [*generated, *real]
    middle = [(min(p[axis] for p in everything) + max(p[axis] for p in everything)) / 2 for axis in (0, 1)]
    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    half = max(
        max(abs(p[0] - middle[0]) for p in everything) / inner_width,
        max(abs(p[1] - middle[1]) for p in everything) / inner_height,
        1e-12,
    )
    unit = 0.48 / half

    def dots(points: Sequence[Point], name: str) -> str:
        return "".join(
            f'<circle class="{name} faint" cx="{_LEFT + inner_width / 2 + (x - middle[0]) * unit:.1f}" '
            f'cy="{_TOP + inner_height / 2 - (y - middle[1]) * unit:.1f}" r="3"/>'
            for x, y in points
        )

    frame = f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{inner_width}" height="{inner_height}"/>'
    labels = _x_axis([], x_label) + _y_label(y_label)
    return _svg(frame + labels + dots(real, "real") + dots(generated, "generated"), "both sides' features on a plane")


def histogram(values: Sequence[float], x_label: str, y_label: str) -> str:
    """How often values fall into equal bins."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        pad = max(abs(low) * 0.1, 1e-6)
        low, high = low - pad, high + pad
    bins = max(5, min(24, round(math.sqrt(len(values)) * 2)))
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    to_x = _scale(low, high, _LEFT, WIDTH - _RIGHT)
    y_ticks = _ticks(0.0, float(max(counts)), whole=True)
    to_y = _scale(0.0, y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    step = (high - low) / bins
    bars = "".join(
        f'<rect class="generated bar" x="{to_x(low + i * step) + 1:.1f}" y="{to_y(count):.1f}" '
        f'width="{to_x(low + step) - to_x(low) - 2:.1f}" height="{to_y(0) - to_y(count):.1f}">'
        f"<title>{low + i * step:.4g} to {low + (i + 1) * step:.4g}: {count}</title></rect>"
        for i, count in enumerate(counts)
        if count
    )
    marks = [low, (low + high) / 2, high]
    axes = _y_axis(y_ticks, to_y, y_label) + _x_axis([(to_x(mark), f"{mark:.3g}") for mark in marks], x_label)
    return _svg(axes + bars, f"distribution of {x_label}")


def _svg(content: str, description: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description, quote=True)}">{content}</svg>'
    )


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    width = high - low
    return lambda value: (start + end) / 2 if width == 0 else start + (value - low) / width * (end - start)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Three to six round numbers from ``low`` to at least ``high``."""
    if high - low < 1e-300:  # nothing, or too little to be divided
        high = low + 1
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    step = max(1.0, math.ceil(step)) if whole else step
    return [low + index * step for index in range(math.ceil((high - low) / step - 1e-9) + 1)]


def _x_axis(marks: Sequence[tuple[float, str]], label: str) -> str:
    base = HEIGHT - _BOTTOM
    ticks = ""
    for x, text in marks:
        # A centred label at the right edge would be cut off.
        anchor = "end" if x > WIDTH - _RIGHT - 12 else "middle"
        ticks += f'<text class="tick" x="{x:.1f}" y="{base + 16}" text-anchor="{anchor}">{escape(text)}</text>'
    center = (_LEFT + WIDTH - _RIGHT) / 2
    return ticks + f'<text class="axis" x="{center}" y="{HEIGHT - 6}" text-anchor="middle">{escape(label)}</text>'


def _y_axis(ticks: Sequence[float], to_y: _Scale, label: str) -> str:
    lines = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{to_y(tick):.1f}" y2="{to_y(tick):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 7}" y="{to_y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        for tick in ticks
    )
    return lines + _y_label(label)


def _y_label(label: str) -> str:
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    return (
        f'<text class="axis" x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(label)}</text>"
    )
