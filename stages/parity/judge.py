"""The verdict over figures: rules, notes, and whether they prove anything. Nothing is measured here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.common.base.params import Parity
from stages.common.compare.comparison import Comparison
from stages.common.judging.rules import evaluate_rules, samples_needed
from stages.common.rule import Rule, failures
from stages.parity.advice import Advice
from stages.parity.notes import notes, vacuous_outputs


@dataclass(frozen=True)
class ParityResult:
    """Figures and the verdict over them.

    Attributes:
        figures: the tree that `figures.measured` makes, or that `metrics/details/parity.json` holds.
        rules: those that apply, evaluated; `failed` those of them that do not hold.
        vacuous: the outputs about which the rules prove nothing.
        needed: samples that the rules need, by rule.
        notes: sentences about what the verdict means.
        advice: commands that were tried and make it pass, with what each was seen to do, best first.
        tried: a sentence on the trials where none of them is worth advising.
        plan: of the search that is advised, as a tree; None without such advice.
        tolerance: the command that would accept the model as it is, where that can be right.
        outliers: input features far outside the rest; after a miss only.
        comparison: what the evidence is written from; None in a trial over files.
    """

    figures: Mapping[str, Any]
    rules: list[Rule]
    failed: list[Rule]
    vacuous: list[str]
    needed: dict[str, int]
    notes: list[str]
    advice: list[Advice] = field(default_factory=list)
    tried: str = ""
    plan: Mapping[str, Any] | None = None
    tolerance: Advice | None = None
    outliers: list[dict[str, Any]] = field(default_factory=list)
    comparison: Comparison | None = None

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return not self.failed


def judge(figures: Mapping[str, Any], params: Parity, comparison: Comparison | None = None) -> ParityResult:
    """Hold the figures against the tolerances.

    Raises:
        ParamsError: `parity.outputs` names an output that the model does not have.
    """
    rules = evaluate_rules(figures, params)
    vacuous = vacuous_outputs(figures, params)
    return ParityResult(
        figures,
        rules,
        failures(rules),
        vacuous,
        samples_needed(figures, params),
        notes(figures, params, vacuous),
        comparison=comparison,
    )
