"""The conditions of a comparison, as sentences and as values."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.evaluation.comparison_report import About
from autoseg.names import counted
from autoseg.options import CompareOptions
from autoseg.studies.compared_run import ComparedRun, ComparisonSetup
from autoseg.training.settle import width_fraction
from autoseg.versions import machine, versions
from planners.records import digest, to_json

__all__ = ["describe", "comparison_name"]


def comparison_name(setup: ComparisonSetup, seeds: Sequence[int], names: Sequence[str], match_flops: bool) -> str:
    """A unique name for this comparison."""
    plan, spec = setup.ready.plan, setup.ready.spec
    shared = [plan, setup.recipe, setup.length, list(seeds), setup.cases_digest, setup.split, setup.device.type]
    return f"{spec.name}_{plan.name}_fold_{setup.fold}_{digest([*shared, names, match_flops])[:8]}"


def describe(setup: ComparisonSetup, seeds: Sequence[int], runs: Sequence[ComparedRun], options: CompareOptions) -> About:
    """Title, conditions in words, and the conditions as values."""
    plan, spec, here = setup.ready.plan, setup.ready.spec, machine(setup.device)
    patch = " x ".join(str(edge) for edge in plan.patch_size)
    share = width_fraction(setup.recipe, setup.device.type)
    features = "the plan's features" if share == 1 else f"{share:g} times the plan's features"
    recipe = " ".join([setup.recipe.name, *setup.recipe_words[2:]])
    drawn = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    conditions = [
        f"Each network: plan {plan.name} (patch {patch}), recipe {recipe}, {features}, "
        f"{setup.length} of training, {drawn}, {counted(len(setup.split.training), 'training case')} and "
        f"{counted(len(setup.split.validation), 'validation case')}, on {here['device']} "
        f"({counted(here['cores'], 'core')}), {here['date']}.",
        _about_trainings(len(seeds)),
    ]
    if options.match_flops and runs:
        conditions.append(_about_widths(runs))
    more = {
        "dataset": spec.name,
        "fold": setup.fold,
        "plan": plan.name,
        "recipe": to_json(setup.recipe),
        "length": to_json(setup.length),
        "seeds": list(seeds),
        "match_flops": options.match_flops,
        "margin": options.margin,
        "machine": here,
        "versions": versions(),
    }
    return About(f"{spec.name}, fold {setup.fold}: networks compared", tuple(conditions), more)


def _about_trainings(count: int) -> str:
    if count == 1:
        return "One training run each: intervals and tests speak of other cases, not of other training runs."
    few = ", which two training runs hardly allow: three or more do." if count == 2 else "."
    return (
        f"{count} training runs each: scores are their means, case by case. A difference counts where it holds over cases "
        f"(bootstrap, Wilcoxon) and over training runs (Student's t){few}"
    )


def _about_widths(runs: Sequence[ComparedRun]) -> str:
    first = runs[0]
    ratios = ", ".join(
        f"{e.name} {e.cost.operations / first.cost.operations:.2f} "
        f"(widths {', '.join(map(str, e.training.plan.network.features))})"
        for e in runs
    )
    return f"Widths were scaled to the operations of {first.name}; achieved, as a ratio: {ratios}."
