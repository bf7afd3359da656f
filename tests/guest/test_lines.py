"""Lines of the kinds of program that few kernels have, and what they cost the verifier."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import compile_source
from pytest_bpf.coverage.recorder import Recorder
from pytest_bpf.coverage.span import lines_of
from pytest_bpf.coverage.verifier_costs import verifier_costs
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf import Object
    from pytest_bpf.coverage.run_lines import LineCounts

    Load = Callable[..., Object]

SOURCE = Path(__file__).parent / "lines.bpf.c"


def count(lines: LineCounts, text: str) -> int:
    """Return how often the only line with this text ran."""
    (number,) = (n for n, words in enumerate(SOURCE.read_text().splitlines(), 1) if text in words)
    return lines[SOURCE.name, number]


@pytest.fixture(params=["clang", "instructions"])
def load(request: pytest.FixtureRequest) -> Iterator[Load]:
    """Load some programs that count their lines, by either engine."""
    recorder = Recorder()
    source = SOURCE if request.param == "clang" else compile_source(SOURCE).object
    with Loader(lines=recorder) as loader:

        def load(*programs: str, **options: Any) -> Object:
            return loader.load(source, programs=programs, globals={"only": os.getpid()}, **options)

        yield load
    assert {file.approximate for file in recorder.files()} == {request.param == "instructions"}


def test_a_program_that_replaces_a_function(load: Load) -> None:
    target = load("whole").programs["whole"]
    obj = load("instead", attach_to={"instead": (target, "part")})
    with obj.programs["instead"].attach():
        lines = lines_of(obj, lambda: [target.test_run(bytes(n)).retval for n in (64, 200, 200)])
    assert count(lines, "data_end - ctx->data > 100") == 3
    if not lines.files[0].approximate:  # else it has no branch there
        assert (count(lines, "XDP_TX"), count(lines, "return XDP_DROP")) == (2, 1)


def test_a_program_that_may_sleep(load: Load) -> None:
    obj = load("asleep")
    with obj.programs["asleep"].attach():
        lines = lines_of(obj, lambda: obj.programs["asleep"].info)
    assert count(lines, "bpf_copy_from_user") >= 1
    assert obj.globals["hits"] >= 1


def test_a_kprobe(load: Load) -> None:
    obj = load("on_statfs")
    with obj.programs["on_statfs"].attach():
        lines = lines_of(obj, lambda: [os.statvfs("/") for _ in range(3)])
    assert count(lines, "32 == only") >= 3
    assert obj.globals["hits"] == 3


def test_every_instruction_of_the_verifier_is_on_a_line() -> None:
    with Loader() as loader:
        names = ("whole", "asleep", "on_statfs")
        for program in loader.load(SOURCE, programs=names).programs.values():
            costs = verifier_costs(program)
            assert costs.insns == program.verified_insns
            assert all(cost.file == str(SOURCE) for cost in costs if cost.line)
