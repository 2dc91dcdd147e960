"""`params.yaml`: what is read, and what is refused with which words."""

import dataclasses
import itertools
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.common.base import params
from stages.common.base.errors import ParamsError

ROOT = Path(__file__).resolve().parents[2]


def load(tmp_path: Path, text: str) -> params.Params:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    return params.load(file)


def test_the_file_shipped_spells_out_every_default() -> None:
    assert params.load(ROOT / "params.yaml") == params.Params()
    shipped = YAML(typ="safe").load((ROOT / "params.yaml").read_text())

    def keys(tree: object) -> object:
        return {name: keys(value) for name, value in tree.items()} if isinstance(tree, dict) and tree else None

    assert keys(shipped) == keys(dataclasses.asdict(params.Params()))


def test_every_key_of_the_file_shipped_has_a_comment() -> None:
    lines = (ROOT / "params.yaml").read_text().splitlines()
    bare = [
        line
        for above, line in itertools.pairwise(lines)
        if ":" in line and not line.lstrip().startswith("#") and not above.lstrip().startswith("#")
    ]
    assert bare == []


def test_without_a_file_every_key_has_its_default(tmp_path: Path) -> None:
    assert params.load(tmp_path / "params.yaml") == params.Params()


@pytest.mark.parametrize("text", ["", "parity:", "{}", "parity: {}"])
def test_empty_files_and_sections_take_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == params.Params()


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    """YAML 1.2: 1e-3 is a number (in YAML 1.1 it is text), and `no` is text (there it is False)."""
    assert load(tmp_path, "parity: {abs_tol: 1e-3, mean_tol: 1}").parity.abs_tol == 0.001
    with pytest.raises(ParamsError, match="'no'; allowed: true or false"):
        load(tmp_path, "quantize: {per_channel: no}")


def test_null_turns_an_optional_rule_off(tmp_path: Path) -> None:
    assert load(tmp_path, "gate:\n  min_speedup:\n").gate.min_speedup is None


def test_lists_and_mappings_of_names(tmp_path: Path) -> None:
    read = load(
        tmp_path, "quantize: {exclude_nodes: ['/a/*'], op_types: [Gemm]}\nparity: {outputs: {boxes: {abs_tol: 2}}}"
    )
    assert read.quantize.exclude_nodes == ("/a/*",)
    assert read.quantize.op_types == ("Gemm",)
    assert read.parity.outputs["boxes"].abs_tol == 2.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quantise: {}", ["unknown key quantise", "Did you mean quantize?"]),
        ("quantize: {weight_tpye: QInt8}", ["unknown key quantize.weight_tpye", "quantize.weight_type?"]),
        ("quantize: {calibration: {sample: 1}}", ["quantize.calibration.sample", "quantize.calibration.samples?"]),
        ("quantize: {weight_type: QInt7}", ["quantize.weight_type is 'QInt7'", "QInt8, QUInt8", "did you mean"]),
        ("quantize: {per_channel: 1}", ["quantize.per_channel is 1", "true or false"]),
        ("quantize: {exclude_nodes: a}", ["quantize.exclude_nodes is 'a'", "a list"]),
        ("quantize: {exclude_nodes: [1]}", ["quantize.exclude_nodes is 1", "text"]),
        ("serving: {batch_size: 0}", ["serving.batch_size is 0", "at least 1"]),
        ("serving: {batch_size: 1.5}", ["serving.batch_size is 1.5", "a whole number"]),
        ("serving: {threads: true}", ["serving.threads is True", "a whole number"]),
        ("parity: {abs_tol: -1}", ["parity.abs_tol is -1", "at least 0"]),
        ("parity: {abs_tol: .nan}", ["parity.abs_tol is nan", "a number"]),
        ("parity: {max_flip_rate: 1}", ["parity.max_flip_rate is 1", "more than 0 and less than 1"]),
        ("parity: {outputs: {y: {abs: 1}}}", ["parity.outputs.y.abs", "parity.outputs.y.abs_tol?"]),
        ("bench: {seed: }", ["bench.seed is empty", "a whole number"]),
        ("bench: {batch_sizes: [1, 0]}", ["bench.batch_sizes is 0", "at least 1"]),
        ("parity: 3", ["parity is 3", "keys are expected"]),
        ("- 1", ["the file is [1]", "keys are expected"]),
        ("a: [1", ["no valid YAML", "in line 1"]),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, text)
    for each in ["params.yaml", *words]:
        assert each in str(caught.value)
    assert caught.value.exit_code == 2
