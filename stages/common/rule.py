"""One rule: a figure held against a limit. Parity and gate evaluate rules; gate and report read them back."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What became of a rule."""

    PASSED = "passed"
    FAILED = "failed"
    OFF = "off"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Rule:
    """A rule and its outcome.

    Attributes:
        name: the key in params.yaml that sets the limit, or a name of its own where no key can turn it off.
        value: the figure; None where it could not be measured.
        limit: what the figure is held against; None for a rule that is off.
        margin: how far the value lies inside the limit, in the value's own unit, negative outside; None where either
            is not a number.
        output: the model output that it judges; empty where it judges the model.
        message: of a failed rule, what that means and what to do; of another, what value and limit do not say.
        sample: index of the evaluation sample that decided it; None where no single one did.
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
        """Whether the rule applies and does not hold."""
        return self.outcome is Outcome.FAILED

    def as_json(self) -> dict[str, Any]:
        """The rule as it stands in `metrics/details`."""
        return asdict(self) | {"outcome": str(self.outcome)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Rule":
        """The rule that `as_json` wrote."""
        return cls(**{**tree, "outcome": Outcome(tree["outcome"])})


def failures(rules: Iterable[Rule]) -> list[Rule]:
    """The rules that apply and do not hold."""
    return [rule for rule in rules if rule.failed]
