"""Plots as inline SVG: they scale, print, take the colours of the page, and say the numbers of each mark in its title."""

import math
import statistics

from autoseg.page.markup import number, text

__all__ = ["draw_distribution", "draw_lines"]

WIDTH, LEFT, RIGHT = 470, 124, 14
CURVES = 390  # width of a plot of curves
ROW, AXIS = 46, 36
MOST_DOTS = 3000  # in a plot; beyond that only boxes
FAR = 6.0  # times the spread of the middle half: farther values stand at the edge, marked as such


def draw_distribution(title, rows, *, low=None, high=None, digits=3):
    """Every case as a dot, the middle half as a box, the mean with its 95 % interval; one row per structure.

    Args:
        title: of the axis, with the unit.
        rows: (structure, [(case, value, address)], mean, low, high) of each structure; values are defined.
        low, high: ends of the axis where they are known, such as 0 and 1.
    """
    values = [value for _, dots, *_ in rows for _, value, _ in dots]
    if not values:
        return ""
    ends = [_ends([value for _, value, _ in dots], low, high) for _, dots, *_ in rows if dots]
    ticks = _ticks(min(a for a, _ in ends), max(b for _, b in ends))
    first, last = ticks[0], ticks[-1]

    def x(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * (min(max(value, first), last) - first) / (last - first)

    height = ROW * len(rows) + AXIS
    parts = [_grid(ticks, x, height, title)]
    for i, (structure, dots, mean, mean_low, mean_high) in enumerate(rows):
        y = ROW * i + ROW / 2 + 2
        parts.append(f'<text class="name" x="{LEFT - 10}" y="{y + 4}">{text(_short(structure))}</text>')
        if dots:
            parts.append(_box([value for _, value, _ in dots], x, y))
            if len(values) <= MOST_DOTS:
                parts += [_dot(k, *dot, x, y, first, last, digits) for k, dot in enumerate(dots)]
            parts.append(_mean(mean, mean_low, mean_high, x, y, digits))
    label = f"{title}: distribution over cases for {len(rows)} structures"
    return _svg(height, label, "".join(parts))


def draw_lines(title, steps, curves, *, low=None, high=None):
    """Curves over the steps of a training.

    Args:
        steps: (n,) numbers.
        curves: (name, css class or colour, [n values or None]) of each.
    """
    found = [v for _, _, values in curves for v in values if v is not None]
    if not found:
        return ""
    bottom = min(found) if low is None else low
    ticks = _ticks(bottom, max(found) if high is None else high)
    left, height, top, base = 46, 230, 12, 190
    span = max(steps[-1] - steps[0], 1)

    def at(step, value):
        x = left + (CURVES - left - RIGHT) * (step - steps[0]) / span
        y = base - (base - top) * (min(max(value, ticks[0]), ticks[-1]) - ticks[0]) / (ticks[-1] - ticks[0])
        return f"{x:.1f} {y:.1f}"

    parts = []
    for tick in ticks:
        y = base - (base - top) * (tick - ticks[0]) / (ticks[-1] - ticks[0])
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{CURVES - RIGHT}"/>')
        parts.append(f'<text class="name" x="{left - 8}" y="{y + 4:.1f}">{_plain(tick)}</text>')
    for step in (steps[0], (steps[0] + steps[-1]) // 2, steps[-1]) if len(steps) > 1 else steps[:1]:
        x = left + (CURVES - left - RIGHT) * (step - steps[0]) / span
        end = ' style="text-anchor:end"' if step == steps[-1] else ""  # long numbers stay inside the figure
        parts.append(f'<text class="tick"{end} x="{x:.1f}" y="{base + 18}">{step:,}</text>')
    parts.append(f'<text class="tick" x="{(left + CURVES - RIGHT) / 2}" y="{base + 36}">step</text>')
    for name, style, values in curves:
        points = [at(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
        if points:
            colour = f'stroke="{style}" style="stroke:{_inked(style)}"' if style.startswith("#") else f'class="{style}"'
            last = next(value for value in reversed(values) if value is not None)
            parts.append(
                f'<path {colour} d="M{"L".join(points)}"><title>{text(name)}: {number(last)} at the end</title></path>'
            )
    legend = "".join(_legend(name, style) for name, style, _ in curves) if len(curves) > 1 else ""
    figure = _svg(height, f"{title} over the steps of the training", "".join(parts), css="curves", width=CURVES)
    return f'<figure class="plot"><figcaption>{text(title)}</figcaption>{figure}<p class="legend">{legend}</p></figure>'


def _inked(colour):
    """A colour of a structure with some ink, so that it stands out on the paper too."""
    return f"color-mix(in srgb, {colour} 72%, var(--ink))"


def _legend(name, style):
    line = f'class="line" style="border-color:{_inked(style)}"' if style.startswith("#") else f'class="line {style}"'
    return f"<span><i {line}></i>{text(name)}</span>"


def _ends(values, low, high):
    """The range that one structure needs on the axis, its far values aside."""
    if len(values) >= 4:
        q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
        reach = FAR * max(q3 - q1, 1e-3 * max(abs(q1), abs(q3)))
        values = [min(max(value, q1 - reach), q3 + reach) for value in values]
    ends = min(values), max(values)
    return (ends[0] if low is None else max(low, ends[0])), (ends[1] if high is None else high)


def _ticks(first, last):
    """Two to seven round numbers that enclose two numbers."""
    if last - first < 1e-6:
        first, last = first - 0.1 * abs(first), last + (0.0 if first else 1.0)
    power = 10 ** math.floor(math.log10((last - first) / 4))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if (last - first) / (power * k) <= 5)
    return [round(k * step, 10) for k in range(math.floor(first / step + 1e-9), math.ceil(last / step - 1e-9) + 1)]


def _grid(ticks, x, height, title):
    parts = []
    for tick in ticks:
        css = "grid zero" if tick == 0 and ticks[0] < 0 else "grid"
        parts.append(f'<path class="{css}" d="M{x(tick):.1f} 2V{height - AXIS + 4}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{height - AXIS + 17}">{_plain(tick)}</text>')
    parts.append(f'<text class="title" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 5}">{text(title)}</text>')
    return "".join(parts)


def _plain(value):
    return f"{value:g}".replace("-", "−")


def _box(values, x, y):
    if len(values) < 4:
        return ""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return (
        f'<rect class="box" x="{x(q1):.1f}" y="{y - 11}" width="{max(x(q3) - x(q1), 1):.1f}" height="22"/>'
        f'<path class="median" d="M{x(median):.1f} {y - 11}v22"/>'
    )


def _dot(k, case, value, address, x, y, first, last, digits):
    y += 16 * ((k * 0.618034) % 1 - 0.5)  # the same scatter for the same case, whatever its value
    beyond = value < first or value > last
    if beyond:
        side = 5 if value > last else -5
        mark = f'<path class="dot" d="M{x(value) + side:.1f} {y:.1f}l{-side} -4v8z"/>'
    else:
        mark = f'<circle class="dot" cx="{x(value):.1f}" cy="{y:.1f}" r="2.6"/>'
    note = ", beyond the axis" if beyond else ""
    return f'<a href="{text(address)}"><title>{text(case)}: {number(float(value), digits)}{note}</title>{mark}</a>'


def _mean(mean, low, high, x, y, digits):
    if mean is None:
        return ""
    interval = "" if low is None else f'<path class="interval" d="M{x(low):.1f} {y + 15}H{x(high):.1f}"/>'
    said = number(mean, digits) + ("" if low is None else f" [{number(low, digits)}, {number(high, digits)}]")
    return (
        f"<g><title>mean {said}</title>{interval}"
        f'<path class="mean" d="M{x(mean):.1f} {y + 10.5}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/></g>'
    )


def _short(name, most=18):
    return name if len(name) <= most else name[: most - 1] + "…"


def _svg(height, label, body, css="distribution", width=WIDTH):
    return f'<svg class="{css}" viewBox="0 0 {width} {height}" role="img" aria-label="{text(label)}">{body}</svg>'
