"""The instruction set that follows from CPU flags."""

import pytest

from stages.common import isa


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("sse2 avx avx2 avx512f avx512bw avx512_vnni avx_vnni amx_tile amx_int8", "amx"),
        ("sse2 avx2 avx512f avx512bw avx512_vnni", "avx512_vnni"),
        ("sse2 avx2 avx_vnni", "avx_vnni"),
        ("sse2 avx2 avx512f avx512bw", "avx512"),
        ("sse2 avx2 avx512f", "avx2"),
        ("sse2 avx2", "avx2"),
        ("sse2", "sse"),
        ("fp asimd asimddp i8mm sve", "i8mm"),
        ("fp asimd asimddp", "dotprod"),
        ("fp asimd", "neon"),
        ("", None),
    ],
)
def test_the_best_that_int8_uses(flags: str, name: str | None) -> None:
    assert isa.best(frozenset(flags.split())) == name


def test_x86_without_vnni_saturates_and_nothing_else_does() -> None:
    assert set(isa.SATURATING) == {"sse", "avx2", "avx512"}
