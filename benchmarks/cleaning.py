"""What cleaning does to float models: the published model compared with its source, as a Markdown table.

Run from the root of the repository: python -m benchmarks.cleaning FOLDER [NAME ...]
FOLDER holds a folder per model with `model.onnx` and `samples.npz` (whole feeds along axis 0) or `inputs.npz` (one
feed). Each model goes through export; source and result are timed as `python -m stages.bench --pair` does. If ONNX
Runtime's optimizer makes the same graph of both, they run the same kernels, and any difference in time is chance.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from benchmarks import zoo
from stages.common.base import params, paths
from stages.common.base.command import run_script
from stages.common.base.errors import StageError
from stages.common.base.params import Params
from stages.common.data.evaldata import EvalData
from stages.common.model.model_file import size_mb
from stages.common.model.sessions import answers, open_session, session_options
from stages.common.timing.launches import LaunchSettings, ModelPair, draw_feed, time_pair
from stages.common.timing.lock import alone
from stages.export import stage

HEADERS = (
    *("model", "steps", "speed-up (95 % interval)", "verdict", "same graph"),
    *("largest difference, of the range", "size, times"),
)


def main() -> None:
    """Clean, compare, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    knobs = params.load()
    names = arguments.names or zoo.names(arguments.folder)
    untouched: list[str] = []
    for cells in (HEADERS, ["---"] * len(HEADERS)):
        print(f"| {' | '.join(cells)} |")
    for name in names:
        with tempfile.TemporaryDirectory() as work:
            try:
                row = _row(arguments.folder.resolve() / name, Path(work), knobs)
            except StageError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
        if row is None:
            untouched.append(name)
        else:
            print(f"| {' | '.join((name, *row))} |", flush=True)
    print(f"\nPublished as they are: {', '.join(untouched) or 'none'}.")


def _row(folder: Path, work: Path, knobs: Params) -> tuple[str, ...] | None:
    """What cleaning did to one model; None if it had nothing to do."""
    source = folder / "model.onnx"
    np.savez(work / "samples.npz", **zoo.feeds(folder))
    os.chdir(work)
    section = knobs.export.model_copy(
        update={"source": str(source), "eval_data": "samples.npz", "eval_layout": "feeds", "clean": True}
    )
    steps = [step.name for step in stage.run(section).steps if not step.undone]
    if not steps:
        return None
    models = ModelPair(source, paths.FP32_MODEL.resolve())
    with alone() as lock:
        feed = draw_feed(EvalData(), 1, knobs.bench.seed, work)
        settings = LaunchSettings(knobs.serving.threads, knobs.bench.seed, lock)
        (timing,) = time_pair(
            models, [feed], settings, budget=knobs.bench.max_seconds, target=knobs.bench.target_halfwidth
        )
    return (
        ", ".join(steps),
        str(timing.interval),
        timing.interval.verdict,
        "yes" if _optimized(models.fp32, work) == _optimized(models.int8, work) else "no",
        f"{_largest_difference(models):.1g}",
        f"{size_mb(models.int8) / size_mb(models.fp32):.2f}",
    )


def _optimized(model: Path, work: Path) -> tuple[list[bytes], list[str]]:
    """What ONNX Runtime's optimizer makes of a model, without names: its nodes in order, and hashes of constants."""
    options = session_options(1)
    options.optimized_model_filepath = str(work / "optimized.onnx")
    open_session(model, options=options)
    nodes: list[bytes] = []
    constants: list[str] = []

    def visit(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            tensor.name = tensor.doc_string = ""
            constants.append(hashlib.sha256(tensor.SerializeToString()).hexdigest())
        for node in graph.node:
            bare = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    visit(attribute.g)
                else:
                    bare.attribute.append(attribute)
            nodes.append(bare.SerializeToString(deterministic=True))

    visit(onnx.load(work / "optimized.onnx", load_external_data=False).graph)
    return nodes, sorted(constants)


def _largest_difference(models: ModelPair) -> float:
    """Over the judge samples, the largest difference of a float output as a share of its range."""
    sessions = [open_session(path) for path in models]
    names = [output.name for output in sessions[0].get_outputs()]
    data = EvalData()
    largest: dict[str, float] = {}
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for batch in data.batches(data.indices("judge"), 1):
        before, after = (answers(session, batch.feed, name="the model") for session in sessions)
        for name in names:
            if before[name].dtype.kind == "f" and before[name].size:
                difference = float(np.max(np.abs(before[name].astype(float) - after[name])))
                largest[name] = max(largest.get(name, 0.0), difference)
                low[name] = min(low.get(name, np.inf), float(before[name].min()))
                high[name] = max(high.get(name, -np.inf), float(before[name].max()))
    return max((largest[name] / ((high[name] - low[name]) or 1.0) for name in largest), default=0.0)


if __name__ == "__main__":
    run_script(main)
