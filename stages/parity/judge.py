"""The verdict: the figures held against the tolerances. Nothing is measured here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.common.base.params import Parity
from stages.common.compare.comparison import Comparison
from stages.common.judging.rules import evaluate_rules
from stages.common.rule import Rule, failures
from stages.parity.advice import Advice


@dataclass(frozen=True)
class ParityResult:
    """The figures, the verdict, and what the stage adds to explain it.

    Attributes:
        figures: the tree that `figures.measured` makes, or that `metrics/details/parity.json` holds.
        rules: those that apply, evaluated.
        comparison: the source of the evidence files; None when tolerances are tried on the last run's figures.
        vacuous: outputs for which passing proves nothing.
        needed: samples that a rule needs, by rule.
        notes: sentences on what the verdict means.
        advice: commands that were tried and pass, with their measured effect, best first.
        tried: a sentence on the trials if none is worth advising.
        tolerance: the command that would accept the model as it is, if that can be right.
        outliers: input features far from the rest; only after a miss.
    """

    figures: Mapping[str, Any]
    rules: list[Rule]
    comparison: Comparison | None = None
    vacuous: list[str] = field(default_factory=list)
    needed: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    tried: str = ""
    tolerance: Advice | None = None
    outliers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[Rule]:
        """The rules that do not hold."""
        return failures(self.rules)

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return not self.failed


def judge(figures: Mapping[str, Any], params: Parity, comparison: Comparison | None = None) -> ParityResult:
    """Hold the figures against the tolerances.

    Raises:
        ParamsError: `parity.outputs` names an output that the model does not have.
    """
    return ParityResult(figures, evaluate_rules(figures, params), comparison)
