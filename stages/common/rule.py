"""A rule: a figure checked against a limit. Parity and gate evaluate rules; gate and report read them back."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    OFF = "off"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Rule:
    """A rule and its outcome.

    Attributes:
        name: the key in params.yaml that sets the limit, or its own name if no key can turn it off.
        value: the figure; None if it could not be measured.
        limit: what the value is compared with; None for a rule that is off.
        margin: how far the value lies inside the limit, in its own unit, negative outside; None if either is not a
            number.
        output: the model output that the rule is about; empty if it is about the whole model.
        message: of a failure, what it means and what to do; of a pass, what value and limit do not say.
        sample: index of the evaluation sample that decided the outcome; None if no single sample did.
    """

    name: str
    value: float | str | None
    limit: float | str | None
    margin: float | None
    outcome: Outcome
    output: str = ""
    message: str = ""
    sample: int | None = None

    @property
    def failed(self) -> bool:
        return self.outcome is Outcome.FAILED

    def as_json(self) -> dict[str, Any]:
        """The rule as `metrics/details` holds it."""
        return asdict(self) | {"outcome": str(self.outcome)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Rule":
        return cls(**{**tree, "outcome": Outcome(tree["outcome"])})


def figure_text(figure: float | str | None) -> str:
    """A value, limit or margin on a screen: floats to three significant digits, None as nothing."""
    if figure is None:
        return ""
    return f"{figure:.3g}" if isinstance(figure, float) else str(figure)


def failures(rules: Iterable[Rule]) -> list[Rule]:
    """The rules that failed."""
    return [rule for rule in rules if rule.failed]
