"""The order of things: look at the inputs, measure alone on the machine, decide, write, tell."""

from stages.bench import inputs, results
from stages.bench.decision import Evidence, decide
from stages.bench.lock import alone
from stages.bench.measure import measure
from stages.common.base.params import Params


def bench(params: Params) -> None:
    """Run the stage.

    Raises:
        StageError: an input is missing, or a model cannot be measured.
    """
    findings = inputs.findings()
    subject = inputs.subject(params)
    with alone() as lock:
        measured = measure(subject, findings, params, lock)
    sizes_mb = inputs.sizes_mb(subject.models)
    threads = params.serving.threads
    decision = decide(
        Evidence(
            quantized=findings.quantized,
            without_int8=inputs.without_int8(subject.models[0]),
            parity_passed=findings.parity_passed,
            speedup=measured.serving.interval,
            size_ratio=sizes_mb[1] / sizes_mb[0],
            max_size_ratio=params.gate.max_size_ratio,
            place=f"on {findings.machine}, {threads} thread{'s' * (threads > 1)}, batch {subject.batch}",
            overhead=measured.overhead(),
            operators=measured.profile.finding(),
            remedy=measured.profile.remedy(),
            noise=str(measured.noise),
        )
    )
    results.write(measured, findings.machine_id, threads, decision)
    results.tell(measured, sizes_mb, decision)
