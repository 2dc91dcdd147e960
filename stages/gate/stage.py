"""The stage: read the metrics of the other stages, evaluate the rules, decide."""

from dataclasses import dataclass

from stages.common.base import pipeline
from stages.common.base.params import Params
from stages.common.rule import Rule, failures
from stages.gate.decision import Deployment, decide
from stages.gate.inputs import Evidence, Figures
from stages.gate.provenance import refuse_foreign_metrics
from stages.gate.rules import evaluate_rules


@dataclass(frozen=True)
class GateResult:
    """The rules, the decision, and notes on what could not be checked."""

    figures: Figures
    rules: list[Rule]
    deployment: Deployment
    notes: list[str]

    @property
    def failed(self) -> list[Rule]:
        """The rules that failed."""
        return failures(self.rules)

    @property
    def open(self) -> bool:
        """Whether no rule failed."""
        return not self.failed


def run(params: Params) -> GateResult:
    """Read the metrics, evaluate the rules, decide.

    Raises:
        StageError: metrics are missing, incomplete, or do not belong together.
    """
    evidence = Evidence.read()
    notes = refuse_foreign_metrics(evidence, params.serving)
    figures = evidence.figures()
    rules = evaluate_rules(figures, params.gate)
    return GateResult(figures, rules, decide(figures, rules, pipeline.address("bench")), notes)
