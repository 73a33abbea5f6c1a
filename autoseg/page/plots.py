"""Plots as inline SVG: they scale, print, use the colours of the report, and show the value of each mark as a tooltip."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from autoseg.names import counted
from autoseg.page.markup import number, text

__all__ = ["Curve", "Spread", "draw_distribution", "draw_lines"]

WIDTH, LEFT, RIGHT = 470, 124, 14
CURVES, HEIGHT = 390, 230  # width and height of a plot of curves
SIDE, TOP, BASE = 46, 12, 190  # left, top and bottom of its frame
ROW, AXIS = 46, 36
MOST_DOTS = 3000  # in a plot; of more values, only boxes are drawn
Scale = Callable[[float], float]  # from a value to its coordinate in the picture
FAR = 6.0  # interquartile ranges from the quartiles; values beyond are drawn at the edge, as triangles


@dataclass(frozen=True)
class Spread:
    """The values of one structure.

    Attributes:
        dots: (case, value, address of the case) of each.
        mean, low, high: mean and its 95 % interval; None if there are too few values.
    """

    structure: str
    dots: Sequence[tuple[str, float, str]]
    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def values(self) -> list[float]:
        return [value for _, value, _ in self.dots]


@dataclass(frozen=True)
class Curve:
    """Values over the training steps, None where there is none; ``style`` is a CSS class or a colour as #rrggbb."""

    name: str
    style: str
    values: Sequence[float | None]


def draw_distribution(
    title: str, rows: Sequence[Spread], *, low: float | None = None, high: float | None = None, digits: int = 3
) -> Markup:
    """Distribution over cases, one row per structure: a dot per case, a box for the middle half, the mean with its interval.

    Args:
        title: of the axis, with the unit.
        rows: one for each structure.
        low: the axis does not extend below it; None for no limit.
        high: upper end of the axis; None to choose it from the values.
        digits: decimals in tooltips.

    Returns:
        SVG; '' if there are no values.
    """
    n_values = sum(len(row.dots) for row in rows)
    if not n_values:
        return Markup()
    ends = [_ends(row.values, low, high) for row in rows if row.dots]
    ticks = _ticks(min(a for a, _ in ends), max(b for _, b in ends))
    first, last = ticks[0], ticks[-1]

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (min(max(value, first), last) - first) / (last - first)

    height = ROW * len(rows) + AXIS
    parts = [_grid(ticks, x, height, title)]
    for i, row in enumerate(rows):
        y = ROW * i + ROW / 2 + 2
        parts.append(f'<text class="name" x="{LEFT - 10}" y="{y + 4}">{text(_short(row.structure))}</text>')
        if row.dots:
            parts.append(_box(row.values, x, y))
            if n_values <= MOST_DOTS:
                parts += [_dot(k, dot, x, y, (first, last), digits) for k, dot in enumerate(row.dots)]
            parts.append(_mean(row, x, y, digits))
    label = f"{title}: distribution over cases for {counted(len(rows), 'structure')}"
    return _svg(height, label, "".join(parts))


def draw_lines(
    title: str, steps: Sequence[int], curves: Sequence[Curve], *, low: float | None = None, high: float | None = None
) -> Markup:
    """Curves over the steps of a training run; '' if there are no values.

    Args:
        title: of the figure.
        steps: (n,) ascending step numbers.
        curves: each with n values.
        low, high: ends of the axis; None to choose them from the values.
    """
    found = [value for curve in curves for value in curve.values if value is not None]
    if not found:
        return Markup()
    bottom = min(found) if low is None else low
    ticks = _ticks(bottom, max(found) if high is None else high)
    span = max(steps[-1] - steps[0], 1)

    def x(step: float) -> float:
        return SIDE + (CURVES - SIDE - RIGHT) * (step - steps[0]) / span

    def y(value: float) -> float:
        return BASE - (BASE - TOP) * (min(max(value, ticks[0]), ticks[-1]) - ticks[0]) / (ticks[-1] - ticks[0])

    parts = []
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{SIDE} {y(tick):.1f}H{CURVES - RIGHT}"/>')
        parts.append(f'<text class="name" x="{SIDE - 8}" y="{y(tick) + 4:.1f}">{_plain(tick)}</text>')
    for step in (steps[0], (steps[0] + steps[-1]) // 2, steps[-1]) if len(steps) > 1 else steps[:1]:
        end = ' style="text-anchor:end"' if step == steps[-1] else ""  # long numbers stay inside the figure
        parts.append(f'<text class="tick"{end} x="{x(step):.1f}" y="{BASE + 18}">{step:,}</text>')
    parts.append(f'<text class="tick" x="{(SIDE + CURVES - RIGHT) / 2}" y="{BASE + 36}">step</text>')
    for curve in curves:
        pairs = [(step, value) for step, value in zip(steps, curve.values, strict=True) if value is not None]
        if pairs:
            said = f"<title>{text(curve.name)}: {number(pairs[-1][1])} at the end</title>"
            places = [(x(step), y(value)) for step, value in pairs]
            parts.append(_line(places, _stroke(curve.style), said))
    legend = "".join(_legend(curve) for curve in curves) if len(curves) > 1 else ""
    figure = _svg(HEIGHT, f"{title} over the steps of the training", "".join(parts), css="curves", width=CURVES)
    return Markup(f'<figure class="plot"><figcaption>{text(title)}</figcaption>{figure}<p class="legend">{legend}</p></figure>')


def _line(places: Sequence[tuple[float, float]], stroke: str, title: str) -> str:
    """A line through all points; a circle if there is only one."""
    if len(places) == 1:
        ((x, y),) = places
        return f'<circle {stroke} cx="{x:.1f}" cy="{y:.1f}" r="3">{title}</circle>'
    return f'<path {stroke} d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}">{title}</path>'


def _stroke(style: str) -> str:
    return f'stroke="{style}" style="stroke:{_inked(style)}"' if style.startswith("#") else f'class="{style}"'


def _inked(colour: str) -> str:
    """A structure's colour mixed with the text colour, so that it contrasts with the background."""
    return f"color-mix(in srgb, {colour} 72%, var(--ink))"


def _legend(curve: Curve) -> str:
    style = curve.style
    line = f'class="line" style="border-color:{_inked(style)}"' if style.startswith("#") else f'class="line {style}"'
    return f"<span><i {line}></i>{text(curve.name)}</span>"


def _ends(values: list[float], low: float | None, high: float | None) -> tuple[float, float]:
    """(lower, upper) end of the axis that one structure needs, without its far values (see ``FAR``)."""
    if len(values) >= 4:
        q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
        reach = FAR * max(q3 - q1, 1e-3 * max(abs(q1), abs(q3)))
        values = [min(max(value, q1 - reach), q3 + reach) for value in values]
    ends = min(values), max(values)
    return (ends[0] if low is None else max(low, ends[0])), (ends[1] if high is None else high)


def _ticks(first: float, last: float) -> list[float]:
    """Two to seven round numbers, evenly spaced, that enclose ``first`` and ``last``."""
    if last - first < 1e-6:
        first, last = first - 0.1 * abs(first), last + (0.0 if first else 1.0)
    power = 10 ** math.floor(math.log10((last - first) / 4))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if (last - first) / (power * k) <= 5)
    return [round(k * step, 10) for k in range(math.floor(first / step + 1e-9), math.ceil(last / step - 1e-9) + 1)]


def _grid(ticks: Sequence[float], x: Scale, height: int, title: str) -> str:
    parts = []
    for tick in ticks:
        css = "grid zero" if tick == 0 and ticks[0] < 0 else "grid"
        parts.append(f'<path class="{css}" d="M{x(tick):.1f} 2V{height - AXIS + 4}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{height - AXIS + 17}">{_plain(tick)}</text>')
    parts.append(f'<text class="title" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 5}">{text(title)}</text>')
    return "".join(parts)


def _plain(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _box(values: Sequence[float], x: Scale, y: float) -> str:
    if len(values) < 4:
        return ""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return (
        f'<rect class="box" x="{x(q1):.1f}" y="{y - 11}" width="{max(x(q3) - x(q1), 1):.1f}" height="22"/>'
        f'<path class="median" d="M{x(median):.1f} {y - 11}v22"/>'
    )


def _dot(k: int, dot: tuple[str, float, str], x: Scale, y: float, ends: tuple[float, float], digits: int) -> str:
    (case, value, address), (first, last) = dot, ends
    y += 16 * ((k * 0.618034) % 1 - 0.5)  # scattered by position in the list, so the same whatever the value
    beyond = value < first or value > last
    if beyond:
        side = 5 if value > last else -5
        mark = f'<path class="dot" d="M{x(value) + side:.1f} {y:.1f}l{-side} -4v8z"/>'
    else:
        mark = f'<circle class="dot" cx="{x(value):.1f}" cy="{y:.1f}" r="2.6"/>'
    note = ", beyond the axis" if beyond else ""
    return f'<a href="{text(address)}"><title>{text(case)}: {number(float(value), digits)}{note}</title>{mark}</a>'


def _mean(row: Spread, x: Scale, y: float, digits: int) -> str:
    mean, low, high = row.mean, row.low, row.high
    if mean is None:
        return ""
    interval = "" if low is None or high is None else f'<path class="interval" d="M{x(low):.1f} {y + 15}H{x(high):.1f}"/>'
    said = number(mean, digits) + ("" if low is None else f" [{number(low, digits)}, {number(high, digits)}]")
    return (
        f"<g><title>mean {said}</title>{interval}"
        f'<path class="mean" d="M{x(mean):.1f} {y + 10.5}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/></g>'
    )


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _svg(height: int, label: str, body: str, css: str = "distribution", width: int = WIDTH) -> Markup:
    role = "group" if "<a " in body else "img"  # screen readers find no links in an image
    return Markup(f'<svg class="{css}" viewBox="0 0 {width} {height}" role="{role}" aria-label="{text(label)}">{body}</svg>')
