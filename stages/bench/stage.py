"""The order of things: look at the inputs, measure alone on the machine, decide, write, tell."""

import tempfile
from pathlib import Path

from stages.bench import feeds, footprint, inputs, latency, one_node, results
from stages.bench.decision import Evidence, decide
from stages.bench.latency import Settings
from stages.bench.lock import alone
from stages.common.params import Params


def bench(params: Params) -> int:
    """Run the stage; 0 whatever the verdict.

    Raises:
        StageError: an input is missing, or a model cannot be measured.
    """
    subject = inputs.subject(params)
    findings = inputs.findings()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, alone() as lock:
        folder = Path(name)
        settings = Settings(params.serving.threads, params.bench.seed, lock)
        serving = feeds.write(subject.data, subject.batch, params.bench.seed, folder)
        (at_serving,) = latency.compare(
            subject.models,
            [serving],
            settings,
            budget=params.bench.max_seconds,
            target=params.bench.target_halfwidth,
        )
        one = one_node.write(folder)
        fp32, int8 = (footprint.measure(model, serving[0], (one[0], one[1][0]), settings) for model in subject.models)
    ratio = inputs.size_ratio(subject.models)
    decision = decide(
        Evidence(
            quantized=findings.quantized,
            tree_like=False,
            parity_passed=findings.parity_passed,
            speedup=at_serving.interval,
            size_ratio=ratio,
            max_size_ratio=params.gate.max_size_ratio,
            place=f"on {findings.machine}, threads {params.serving.threads}, batch {subject.batch}",
            operators="",
            remedy="Ship fp32",
            noise="",
        )
    )
    results.write(at_serving, fp32, int8, decision)
    results.tell(at_serving, fp32, int8, ratio, decision)
    return 0
