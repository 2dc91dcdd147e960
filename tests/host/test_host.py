"""The fingerprint: what it reads, and what changes its identifier."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.base.params import Params, Parity, Quantize, Serving
from stages.host import cpu, figures, screen, stage
from stages.host.stage import Hardware

ROOT = Path(__file__).resolve().parents[2]


def test_every_key_of_the_interface_is_there_and_stays(tmp_path: Path) -> None:
    def run() -> bytes:
        program = [sys.executable, "-m", "stages.host"]
        subprocess.run(program, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
        return (tmp_path / "metrics/host.json").read_bytes()

    first = run()
    assert run() == first
    tree = json.loads(first)
    assert len(tree["machine_id"]) == 12
    assert {"model", "isa", "cores"} <= set(tree["cpu"])
    assert {"ram_gb", "os", "python", "onnxruntime"} <= set(tree)
    assert tree["ram_gb"] > 0
    assert tree["cpu"]["cores"] > 0


def test_a_search_depends_on_its_target_and_no_other_method_does() -> None:
    machine, auto = stage.run(), Quantize(method="auto")
    targets = [
        figures.search_target(machine, Params(quantize=auto)),
        figures.search_target(machine, Params(quantize=auto, parity=Parity(abs_tol=0.05))),
        figures.search_target(machine, Params(quantize=auto, serving=Serving(batch_size=2))),
    ]
    assert len({json.dumps(target) for target in targets}) == 3
    assert figures.search_target(machine, Params(parity=Parity(abs_tol=0.05))) == {}


def test_a_plan_is_replayed_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    params = Params(quantize=Quantize(method="plan", plan=str(file)))
    missing = figures.search_target(stage.run(), params)
    file.write_text("{}")
    first = figures.search_target(stage.run(), params)
    file.write_text('{"nodes": {}}')
    assert missing != first != figures.search_target(stage.run(), params)


def test_the_identifier_moves_with_what_moves_speed() -> None:
    here = stage.run().hardware
    others = [
        dataclasses.replace(here, model="another"),
        dataclasses.replace(here, isa="another"),
        dataclasses.replace(here, flags=("another",)),
        dataclasses.replace(here, caches="another"),
        dataclasses.replace(here, cores=here.cores + 1),
        dataclasses.replace(here, quota=(here.quota or 0) + 0.5),
        dataclasses.replace(here, onnxruntime="0.0"),
    ]
    assert len({hardware.identifier() for hardware in [here, *others]}) == 1 + len(dataclasses.fields(Hardware))
    assert stage.run().hardware.identifier() == here.identifier()


X86 = (
    "processor\t: 0\nmodel name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\n"
    "cpu MHz\t: {mhz}\nflags\t: fpu\n\n"
)
ARM = "processor\t: 0\nBogoMIPS\t: {mhz}\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n"


@pytest.mark.parametrize(
    ("cpuinfo", "ending"),
    [(X86, "AMD EPYC (family 25, model 17, stepping 1)"), (ARM, "(implementer 0x41, part 0xd40)")],
)
def test_the_clock_is_not_part_of_the_model(cpuinfo: str, ending: str) -> None:
    names = {cpu.describe(cpuinfo.format(mhz=mhz)) for mhz in ("2400.1", "3100.7")}
    assert len(names) == 1
    assert names.pop().endswith(ending)


def group(root: Path, name: str, limit: str) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "cpu.max").write_text(limit)


def test_the_tightest_quota_of_the_enclosing_groups_counts(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/slice/job\n")
    root = tmp_path / "fs"
    group(root, "", "max 100000")
    assert cpu.quota(root, membership) is None
    group(root, "slice", "150000 100000")
    assert cpu.quota(root, membership) == 1.5
    group(root, "slice/job", "max 100000")
    assert cpu.quota(root, membership) == 1.5
    group(root, "slice/job", "50000 100000")
    assert cpu.quota(root, membership) == 0.5


def test_a_control_group_may_have_spaces_in_its_name(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("1:name=systemd:/other\n0::/my session/job\n")
    group(tmp_path / "fs", "my session/job", "50000 100000")
    assert cpu.quota(tmp_path / "fs", membership) == 0.5


def test_quotas_of_version_1(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("4:cpu,cpuacct:/docker/a\n3:memory:/docker/a\n")
    folder = tmp_path / "fs/cpu/docker/a"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu.quota(tmp_path / "fs", membership) is None
    (folder / "cpu.cfs_quota_us").write_text("250000\n")
    assert cpu.quota(tmp_path / "fs", membership) == 2.5


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu.quota(tmp_path, tmp_path / "none") is None


@given(st.text(st.characters(codec="ascii"), max_size=200))
def test_any_cpuinfo_is_described(text: str) -> None:
    assert cpu.describe(text)


def test_caches_are_named_by_level_and_kind(tmp_path: Path) -> None:
    for i, (level, kind, size) in enumerate(
        [("1", "Data", "32K"), ("1", "Instruction", "32K"), ("2", "Unified", "1M")]
    ):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(value + "\n")
    assert cpu.caches(tmp_path) == "L1d 32K, L1i 32K, L2 1M"
    assert cpu.caches(tmp_path / "none") == ""


def test_a_cache_without_a_size_is_named_without_it(tmp_path: Path) -> None:
    """Most ARM boards and many virtual machines report no size."""
    folder = tmp_path / "index0"
    folder.mkdir()
    (folder / "level").write_text("1\n")
    (folder / "type").write_text("Data\n")
    (tmp_path / "index1").mkdir()
    assert cpu.caches(tmp_path) == "L1d"


def test_the_screen_counts_one_core_in_the_singular() -> None:
    machine = stage.run()
    one = dataclasses.replace(machine, hardware=dataclasses.replace(machine.hardware, cores=1, quota=None))
    assert " 1 core," in screen.render(one)
    half = dataclasses.replace(machine, hardware=dataclasses.replace(machine.hardware, cores=0.5, quota=0.5))
    assert " 0.5 cores (a quota of 0.5)," in screen.render(half)
