"""The part about a training: curves, the plan with its reasons, the recipe, the data set, and how well it restores images."""

import statistics
from dataclasses import dataclass, field

from autoseg.page.markup import colour_of, interval, number, scrubbed, table, text
from autoseg.page.plots import draw_lines

__all__ = ["RunRecord", "run_sections"]


@dataclass(frozen=True)
class RunRecord:
    """What is stored about a fold, as JSON holds it.

    Attributes:
        run: run.json: task (plan, labels, recipe, length, seed, cases), device, batch size, versions.
        history: a dictionary per check.
        fingerprint, findings: of the data set; {} and () where they are not found.
        restoration: restoration.json; {} where the network does not restore images.
    """

    run: dict
    history: tuple[dict, ...]
    fingerprint: dict
    findings: tuple[dict, ...]
    restoration: dict = field(default_factory=dict)


def run_sections(record, folders):
    """[(title, id, html)] of a RunRecord."""
    task = record.run["task"]
    sections = [("Training", "training", _facts(record) + _curves(record.history))]
    sections.append(("Plan and its reasons", "plan", _plan(task["plan"])))
    sections.append(("Recipe", "recipe", _recipe(task)))
    if record.fingerprint:
        sections.append(("Data set", "data", _data(record.fingerprint, record.findings, folders)))
    if record.restoration:
        sections.append(("Restored images", "restoration", _restoration(record.restoration, folders)))
    return sections


def facts(pairs):
    """A list of names and values."""
    items = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs if value not in (None, "")
    )
    return f'<dl class="facts">{items}</dl>'


def _facts(record):
    task, last = record.run["task"], record.history[-1] if record.history else {}
    versions = record.run.get("versions", {})
    return facts(
        [
            ("data set", task["plan"]["dataset"]),
            ("network", task["plan"]["network"]["name"]),
            ("steps", number(last.get("step"))),
            ("time", f"{last['seconds'] / 60:.1f} min" if last else None),
            ("cases to learn from", len(task["training"])),
            ("held back", len(task["validation"])),
            ("device", record.run.get("device")),
            ("patches in a batch", record.run.get("batch_size")),
            ("seed", task["seed"]),
            ("autoseg", versions.get("autoseg")),
            ("torch", versions.get("torch")),
        ]
    )


def _curves(history):
    if not history:
        return "<p>No check was written yet.</p>"
    steps = [row["step"] for row in history]
    losses = [
        ("training", "first", [row.get("train_loss") for row in history]),
        ("validation patches", "second", [row.get("validation_loss") for row in history]),
    ]
    names = list(history[-1].get("patch_dice", {}))
    dice = [(name, colour_of(i), [row["patch_dice"].get(name) for row in history]) for i, name in enumerate(names)]
    rate = [("learning rate", "first", [row.get("learning_rate") for row in history])]
    plots = [draw_lines("Loss", steps, losses), draw_lines("Dice on validation patches", steps, dice, low=0.0, high=1.0)]
    return f'<div class="plots three">{"".join(plots)}{draw_lines("Learning rate", steps, rate, low=0.0)}</div>'


def _by_axis(values, digits="g"):
    return " × ".join(f"{value:{digits}}" for value in values)


def _plan(plan):
    network = plan["network"]
    summary = facts(
        [
            ("plan", plan["name"]),
            ("planner", f"{plan['planner']}, preset {plan['preset']}"),
            ("spacing", f"{_by_axis(plan['spacing_mm'], '.3g')} mm"),
            ("patch", f"{_by_axis(plan['patch_size'])} voxels"),
            ("planned batch", plan["batch_size"]),
            ("features", ", ".join(map(str, network["features"]))),
            ("normalisation", ", ".join(f"{how['channel']}: {how['scheme']}" for how in plan["normalization"])),
        ]
    )
    rows = []
    for decision in plan["decisions"]:
        mark = '<span class="warn">look at this</span> ' if decision.get("warning") else ""
        why = text(decision["rule"]) + (
            f'<br><span class="of">{text(decision["numbers"])}</span>' if decision.get("numbers") else ""
        )
        rows.append([f"{mark}{text(decision['what'])}", text(decision["chosen"]), why])
    return summary + table(["decision", "chosen", "because"], rows, css="prose", numeric_from=9)


def _recipe(task):
    shown = [[text(name.replace("_", " ")), text(_value(value))] for name, value in task["recipe"].items()]
    length = ", ".join(f"{value:g} {name}" for name, value in task["length"].items() if value)
    shown.append(["length asked for", text(length)])
    half = -(-len(shown) // 2)
    return f'<div class="columns">{"".join(table(["setting", "value"], part) for part in (shown[:half], shown[half:]))}</div>'


def _value(value):
    if isinstance(value, list):
        return "; ".join(_value(part) for part in value) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(part)}" for key, part in value.items())
    return f"{value:g}" if isinstance(value, float) else number(value)


def _data(fingerprint, findings, folders):
    axes = list(zip(*fingerprint["spacings_mm"], strict=True)), list(zip(*fingerprint["shapes"], strict=True))
    sizes = [[side, _spread(axes[0][i]), _spread(axes[1][i])] for i, side in enumerate(AXES)]
    keys = ("mean", "std", "percentile_00_5", "percentile_99_5", "minimum", "maximum")
    titles = ("channel", "mean", "standard deviation", "0.5 %", "99.5 %", "lowest", "highest")
    channels = [[text(c["name"]), *(number(float(c[key]), 1) for key in keys)] for c in fingerprint["channels"]]
    parts = [
        facts(
            [
                ("name", fingerprint["dataset"]),
                ("training cases", len(fingerprint["cases"])),
                ("channels", ", ".join(c["name"] for c in fingerprint["channels"])),
                ("structures", ", ".join(fingerprint["structures"])),
                ("part left by cropping", f"{100 * fingerprint.get('relative_crop', 1):.0f} % of the voxels, median"),
            ]
        ),
        table(["axis", "voxel size, mm: median (range)", "voxels: median (range)"], sizes, "Sizes after cropping"),
        table(titles, channels, "Intensities in the labelled structures"),
        "<h3>Findings</h3>",
    ]
    lines = [_finding(finding, folders) for finding in findings[:MOST_FINDINGS]]
    listed = table(["finding", "case", "what", "remedy"], lines, css="prose", numeric_from=9)
    if len(findings) > FEW_FINDINGS:
        listed = f"<details><summary>{len(findings)} findings</summary>{listed}</details>"
    parts.append(listed if findings else "<p>None.</p>")
    if len(findings) > MOST_FINDINGS:
        parts.append(f'<p class="small">And {len(findings) - MOST_FINDINGS} more, in findings.json.</p>')
    return "".join(parts)


RESTORED = {  # title of a column: (number, the sign of its mean, digits)
    "SSIM": ("ssim", False, 3),
    "SSIM without the head": ("bar_ssim", False, 3),
    "gain in SSIM": ("ssim_gain", True, 3),
    "MSE": ("mse", False, 5),
    "MSE without the head": ("bar_mse", False, 5),
    "skill": ("skill", True, 2),
}


def _restoration(result, folders):
    """A row for each way to degrade; the summary of restoration.json."""
    rows = []
    for kind, found in result["summary"].items():
        cells = [_restored(found[name], signed, digits) for name, signed, digits in RESTORED.values()]
        rows.append([text(kind.replace("_", " ")), number(found["ssim"]["n"]), *cells])
    failed = [
        f"<li><strong>{text(case)}</strong>: {text(scrubbed(why, folders))}</li>" for case, why in result["failures"].items()
    ]
    return (
        "<p>The network restores images too. The scans that were held back were degraded on purpose, restored, and compared "
        "with what they had been, intensities from 0 to 1.</p>"
        f"{table(['degraded by', 'cases', *RESTORED], rows)}"
        '<p class="small">Means over cases with 95 % bootstrap intervals. Without the head: the best that is there without a '
        "network, which is cubic interpolation of thick slices, and the noisy or blurred image as it is. Skill: the part of "
        "its squared error that is gone, 0 for none, 1 for all, below 0 where the network makes it worse.</p>"
        + (f'<h3>Not restored</h3><ul class="bad-list">{"".join(failed)}</ul>' if failed else "")
    )


def _restored(found, signed, digits):
    def said(value):
        return ("+" if signed and value > 0 else "") + number(value, digits)

    if found["mean"] is None:
        return number(None)
    low, high = found["interval"]
    return said(found["mean"]) + ("" if low is None else interval(said(low), said(high)))


AXES = ("towards the head (z)", "towards the front (y)", "towards the right (x)")
MOST_FINDINGS = 40
FEW_FINDINGS = 8  # shown at once; more are folded


def _spread(values):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def _finding(finding, folders):
    said = [scrubbed(str(finding.get(key, "")), folders) for key in ("case", "message", "remedy")]
    return [
        f'<span class="{text(finding["severity"])}">{text(finding["severity"])}</span> {text(finding["code"])}',
        *map(text, said),
    ]
