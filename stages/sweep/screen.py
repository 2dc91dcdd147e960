"""A table of the experiments, the last lines of those that failed, and the command that shows the results."""

from tabulate import tabulate

from stages.sweep.stage import SweepResult


def render(result: SweepResult) -> str:
    states = dict.fromkeys(result.already_there, "already there")
    states |= {outcome.name: "failed" if outcome.failure else "pushed" for outcome in result.outcomes}
    rows = [(name, states[name], " ".join(overrides)) for name, overrides in result.settings.items()]
    parts = [tabulate(rows, headers=("experiment", "", "settings"), disable_numparse=True)]
    parts += [
        f"{outcome.name} failed:\n" + "\n".join(f"  {line}" for line in outcome.failure) for outcome in result.failed
    ]
    ran = len(result.outcomes) - len(result.failed)
    parts.append(
        f"{ran} pushed, {len(result.already_there)} already there, {len(result.failed)} failed. "
        f"Show them: dvc exp pull {result.remote} && python -m stages.report --experiments"
    )
    return "\n\n".join(parts)
