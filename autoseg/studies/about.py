"""What a comparison was made under, in sentences and as values."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.evaluation.comparison_report import About
from autoseg.options import CompareOptions
from autoseg.studies.entrant import Entrant, Study
from autoseg.training.settle import width_share
from autoseg.versions import machine, versions
from planners.records import digest, to_json

__all__ = ["describe", "study_name"]


def study_name(study: Study, seeds: Sequence[int], names: Sequence[str], match_flops: bool) -> str:
    """A name that tells this comparison from any other."""
    plan, spec = study.ready.plan, study.ready.spec
    shared = [plan, study.recipe, study.length, list(seeds), study.cases_digest, study.split, study.device.type]
    return f"{spec.name}_{plan.name}_fold_{study.fold}_{digest([*shared, names, match_flops])[:8]}"


def describe(study: Study, seeds: Sequence[int], entrants: Sequence[Entrant], options: CompareOptions) -> About:
    """Title, conditions in words, and the same as values."""
    plan, spec, here = study.ready.plan, study.ready.spec, machine(study.device)
    patch = " x ".join(str(edge) for edge in plan.patch_size)
    share = width_share(study.recipe, study.device.type)
    features = "the plan's features" if share == 1 else f"{share:g} times the plan's features"
    recipe = " ".join([study.recipe.name, *study.recipe_words[2:]])
    drawn = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    conditions = [
        f"Each network: plan {plan.name} (patch {patch}), recipe {recipe}, {features}, "
        f"{study.length} of training, {drawn}, {len(study.split.training)} cases to learn from and "
        f"{len(study.split.validation)} held back, on {here['device']} ({here['cores']} cores), {here['date']}.",
        _about_trainings(len(seeds)),
    ]
    if options.match_flops and entrants:
        conditions.append(_about_widths(entrants))
    more = {
        "dataset": spec.name,
        "fold": study.fold,
        "plan": plan.name,
        "recipe": to_json(study.recipe),
        "length": to_json(study.length),
        "seeds": list(seeds),
        "match_flops": options.match_flops,
        "margin": options.margin,
        "machine": here,
        "versions": versions(),
    }
    return About(f"{spec.name}, fold {study.fold}: networks compared", tuple(conditions), more)


def _about_trainings(count: int) -> str:
    if count == 1:
        return "One training each: intervals and tests speak of other cases, not of other trainings."
    few = ", which two trainings hardly allow: three or more do." if count == 2 else "."
    return (
        f"{count} trainings each: scores are their means, case by case. A difference counts where it holds over cases "
        f"(bootstrap, Wilcoxon) and over trainings (Student's t){few}"
    )


def _about_widths(entrants: Sequence[Entrant]) -> str:
    first = entrants[0]
    ratios = ", ".join(
        f"{e.name} {e.cost.operations / first.cost.operations:.2f} "
        f"(widths {', '.join(map(str, e.training.plan.network.features))})"
        for e in entrants
    )
    return f"Widths were scaled to the operations of {first.name}; achieved, as a ratio: {ratios}."
