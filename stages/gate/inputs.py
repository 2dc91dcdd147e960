"""The figures that the decision is based on, read from the metrics of the other stages."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.base import files, paths
from stages.common.base.errors import StageError
from stages.common.rule import Rule, failures
from stages.gate.drift import beyond_tolerance


@dataclass(frozen=True)
class Host:
    """Where speed was measured, and how the model was served there."""

    machine_id: str
    cpu: str
    isa: str
    cores: float
    onnxruntime: str
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"at batch {self.batch} with {self.threads} thread{'s' * (self.threads != 1)} on {self.isa}"


@dataclass(frozen=True)
class Speedup:
    """fp32 time over INT8 time with its 95 % interval, and bench's verdict; all None if it was not measured."""

    ratio: float | None
    low: float | None
    high: float | None
    verdict: str | None

    def __str__(self) -> str:
        if self.ratio is None:
            return "not measured"
        return f"{self.ratio:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True)
class Figures:
    """Everything that the rules and the decision are computed from.

    Attributes:
        quantized: whether there is an INT8 model.
        size_ratio: size of the INT8 model over that of the fp32 model.
        without_int8: operator types of the model that have no INT8 form, such as tree ensembles.
        parity_passed: whether parity passed.
        samples: number of samples that parity judged.
        parity_failures: parity's rules that failed.
        drift: a sentence if the export alone exceeds a tolerance of parity, else empty.
        parity_advice: commands that parity tried and saw pass, best first.
        untried: settings that parity had no time to try.
        speedup: at the serving batch size.
        findings: bench's sentences on where the INT8 model spends its time.
        noise: what disturbed the measurement, as a sentence without its full stop; empty if nothing did.
        host: where and how speed was measured.
    """

    quantized: bool
    size_ratio: float
    without_int8: tuple[str, ...]
    parity_passed: bool
    samples: int
    parity_failures: tuple[Rule, ...]
    drift: str
    parity_advice: tuple[str, ...]
    untried: tuple[str, ...]
    speedup: Speedup
    findings: tuple[str, ...]
    noise: str
    host: Host


class Metrics:
    """A metrics file of a stage; a missing key is reported with the stage to run again."""

    def __init__(self, path: Path, stage: str) -> None:
        self.tree = files.read_json(path, stage)
        self.path = path
        self.stage = stage

    def get(self, *keys: str) -> Any:
        """The value at these keys.

        Raises:
            StageError: a key is missing.
        """
        node: Any = self.tree
        for key in keys:
            if not isinstance(node, Mapping) or key not in node:
                raise StageError(f"{self.path.as_posix()} has no {'.'.join(keys)}. Run {self.stage} again.")
            node = node[key]
        return node

    def optional(self, *keys: str) -> Any:
        """The value at these keys; None if a key is missing or its value null."""
        node: Any = self.tree
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node


@dataclass(frozen=True)
class Evidence:
    """The metrics files that the gate reads."""

    host: Metrics
    export_details: Metrics
    quantize: Metrics
    parity: Metrics
    parity_details: Metrics
    bench: Metrics
    bench_details: Metrics

    @classmethod
    def read(cls) -> "Evidence":
        """Read all files.

        Raises:
            StageError: one is missing, or is not JSON.
        """
        return cls(
            Metrics(paths.HOST, "host"),
            Metrics(paths.EXPORT_DETAILS, "export"),
            Metrics(paths.QUANTIZE, "quantize"),
            Metrics(paths.PARITY, "parity"),
            Metrics(paths.PARITY_DETAILS, "parity"),
            Metrics(paths.BENCH, "bench"),
            Metrics(paths.BENCH_DETAILS, "bench"),
        )

    def figures(self) -> Figures:
        """Pick out the figures.

        Raises:
            StageError: one is missing.
        """
        details = self.bench_details
        findings = (details.optional("operators", "finding"), details.optional("call", "finding"))
        rules = [Rule.from_json(rule) for rule in self.parity_details.get("rules")]
        return Figures(
            quantized=self.quantize.get("status") == "quantized",
            size_ratio=self.quantize.get("size", "int8_mb") / self.quantize.get("size", "fp32_mb"),
            without_int8=tuple(details.get("without_int8")),
            parity_passed=self.parity.get("passed"),
            samples=self.parity.get("judged", "samples"),
            parity_failures=tuple(failures(rules)),
            drift=beyond_tolerance(self.export_details.get("drift"), rules),
            parity_advice=tuple(advice["command"] for advice in self.parity_details.get("advice")),
            untried=tuple(self.parity_details.optional("untried") or ()),
            speedup=Speedup(*(self.bench.get("speedup", key) for key in ("ratio", "low95", "high95", "verdict"))),
            findings=tuple(filter(None, findings)),
            noise=details.optional("noise", "finding") or "",
            host=Host(
                *(
                    self.host.get(*key)
                    for key in (("machine_id",), ("cpu", "model"), ("cpu", "isa"), ("cpu", "cores"), ("onnxruntime",))
                ),
                *(details.get("measured", key) for key in ("threads", "batch")),
            ),
        )
