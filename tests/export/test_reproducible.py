"""Export gives the same bytes each time, and publishes nothing if the training was stopped."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from stages.export import framework
from tests import sources
from tests.export.conftest import Run


@pytest.mark.extended
@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "import hashlib; from stages.common.base.params import Export; from stages.export import source\n"
        "from stages.common.model.ir_conversion import to_proto\n"
        "with source.opened(Export(source='tests.sources:text_labels')) as exported:\n"
        "    proto = to_proto(exported.converted.model)\n"
        "    print(hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest())"
    )
    digests = set()
    for seed in (*range(18), 52, 53):
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", code]
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        digests.add(output.splitlines()[-1])
    assert len(digests) == 1


def test_every_domain_is_imported_once_and_in_order() -> None:
    pairs = [("ai.onnx.ml", 1), ("", 17), ("ai.onnx.ml", 3), ("", 15)]
    for order in itertools.permutations(pairs):
        model = sources.linear()
        del model.opset_import[:]
        model.opset_import.extend(onnx.helper.make_opsetid(*pair) for pair in order)
        opsets = list(framework.as_model(model).opset_imports.items())
        assert opsets == [("", 17), ("ai.onnx.ml", 3)]


def test_a_training_that_swallows_an_interrupt_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("export: {source: 'tests.sources:endless'}\n")
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.export"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (tmp_path / "training").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"params.yaml", "training"}


def test_two_exports_have_the_same_bytes(run: Run, tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(file): file.read_bytes() for file in Path().rglob("*") if file.is_file()}

    run("tests.sources:small_mlp")
    first = contents()
    run("tests.sources:small_mlp")
    assert contents() == first
    assert {
        "artifacts/model.onnx",
        "artifacts/model.onnx.data",
        "metrics/export.json",
        "metrics/details/export.json",
    } <= set(first)
    run("tests.sources:small_mlp", seed=1)
    assert contents()["artifacts/model.onnx"] != first["artifacts/model.onnx"]
