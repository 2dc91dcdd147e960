"""`params.yaml`: what is read, what is refused, and with which message."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.common.base import params, yaml12
from stages.common.base.errors import ParamsError

ROOT = Path(__file__).resolve().parents[2]


def load(tmp_path: Path, text: str) -> params.Params:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    return params.load(file)


def test_the_file_shipped_spells_out_every_default() -> None:
    assert params.load(ROOT / "params.yaml") == params.Params()
    shipped = yaml12.load((ROOT / "params.yaml").read_text())

    def keys(tree: object) -> object:
        return {name: keys(value) for name, value in tree.items()} if isinstance(tree, dict) and tree else None

    assert keys(shipped) == keys(params.Params().model_dump())


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
        (
            "quantize: {method: dynamci}",
            ["quantize.method is 'dynamci'", "static, weight_only", "did you mean dynamic"],
        ),
        ("quantize: {nodes: {a: {method: flaot}}}", ["nodes.a.method is 'flaot'", "did you mean float"]),
        ("quantize: {per_channel: 1}", ["quantize.per_channel is 1", "true or false"]),
        ("quantize: {exclude_nodes: a}", ["quantize.exclude_nodes is 'a'", "a list"]),
        ("quantize: {exclude_nodes: [1]}", ["quantize.exclude_nodes is 1", "text"]),
        ("serving: {batch_size: 0}", ["serving.batch_size is 0", "at least 1"]),
        ("serving: {batch_size: 1.5}", ["serving.batch_size is 1.5", "a whole number"]),
        ("serving: {threads: 100000}", ["serving.threads is 100000", "at most 1024"]),
        ("serving: {threads: true}", ["serving.threads is True", "a whole number"]),
        ("parity: {abs_tol: -1}", ["parity.abs_tol is -1", "at least 0, or null."]),
        ("parity: {abs_tol: .nan}", ["parity.abs_tol is nan", "a number"]),
        ("parity: {max_flip_rate: 1}", ["parity.max_flip_rate is 1", "more than 0 and less than 1"]),
        ("parity: {outputs: {y: {abs: 1}}}", ["parity.outputs.y.abs", "parity.outputs.y.abs_tol?"]),
        ("bench: {seed: }", ["bench.seed is empty", "a whole number"]),
        ("bench: {batch_sizes: [1, 0]}", ["bench.batch_sizes is 0", "at least 1"]),
        ("parity: 3", ["parity is 3", "keys are expected"]),
        ("- 1", ["the file is [1]", "keys are expected"]),
        ("a: [1", ["not valid YAML", "on line 1"]),
        ("gate: {}\ngate: {}", ["duplicate key 'gate'", "on line 2"]),
        ("1: 2", ["unknown key 1", "Known keys: serving, export"]),
        ("exprot: {source: models.mine:build}", ["unknown key exprot", "Did you mean export?"]),
        ("quantize: {1: 2}", ["unknown key quantize.1", "Known keys: method"]),
        ("parity: {outputs: 1}", ["parity.outputs is 1", "a mapping of names"]),
        ("parity: {outputs: {y: 1}}", ["parity.outputs.y is 1", "keys are expected"]),
        ("quantize: {weight_only: {block_size: 20}}", ["block_size is 20", "16, 32, 64, 128, 256"]),
        ("quantize: {method: plan, plan: metrics/details/plan.json}", ["every run of quantize overwrites", "Copy it"]),
        ("quantize: {weight_type: QInt4}", ["quantize.weight_type is QInt4", "weight_only", "dynamic takes"]),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, text)
    for expected in ["params.yaml", *words]:
        assert expected in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [["x"], {"x": "y"}, "x", -7.5, None])
def test_any_value_of_any_key_is_read_or_refused_in_one_sentence(tmp_path: Path, value: object) -> None:
    def places(tree: object, *place: str) -> Iterator[tuple[str, ...]]:
        yield place
        for name, inner in tree.items() if isinstance(tree, dict) else ():
            yield from places(inner, *place, name)

    node, output = params.NodeOverrides().model_dump(), params.OutputTolerance().model_dump()
    everything = params.Params().model_dump() | {"quantize": params.Quantize().model_dump() | {"nodes": {"a": node}}}
    everything["parity"]["outputs"] = {"y": output}
    for place in places(everything):
        tree = value
        for name in reversed(place):
            tree = {name: tree}
        try:
            load(tmp_path, yaml.safe_dump(tree))
        except ParamsError as error:
            assert str(error).startswith("params.yaml: ")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from([*params.Params.model_fields, *params.Quantize.model_fields, *params.Parity.model_fields])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.integers(), inner, max_size=3),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.dictionaries(NAMES | st.integers(), TREES, max_size=3))
def test_any_tree_is_read_or_refused_in_one_sentence(tmp_path: Path, tree: dict[object, object]) -> None:
    try:
        load(tmp_path, yaml.safe_dump(tree))
    except ParamsError as error:
        assert str(error).startswith("params.yaml: ")


EVERY_STAGE = """
import runpy
for stage in ("host", "export", "quantize", "parity", "bench", "gate"):
    try:
        runpy.run_module(f"stages.{stage}", run_name="__main__")
    except SystemExit as stopped:
        print(stopped.code)
"""


def test_a_bad_value_of_any_section_stops_every_stage_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("gate: {max_size_ratio: -1}")
    run = subprocess.run(
        [sys.executable, "-c", EVERY_STAGE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    line = "Error: params.yaml: gate.max_size_ratio is -1; allowed: a number, more than 0, or null.\n"
    assert (run.stdout.split(), run.stderr) == (["2"] * 6, line * 6)


def test_dvc_changes_one_line_of_the_file_shipped(tmp_path: Path) -> None:
    """`dvc exp run -S` and `dvc exp apply` rewrite params.yaml: null as an empty value, lists as blocks."""
    shipped = (ROOT / "params.yaml").read_text()
    file = tmp_path / "params.yaml"
    file.write_text(shipped)
    apply_overrides(file, ["gate.max_size_ratio=0.8"])
    assert file.read_text() == shipped.replace("max_size_ratio: 0.9", "max_size_ratio: 0.8")


def test_sections_of_the_repository_around_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("train: {lr: 0.1, source: here}\nreport: {title: Q3}\nprepare:\nseed: 7\nbench: {max_seconds: 2}\n")
    assert params.load(file).bench.max_seconds == 2
