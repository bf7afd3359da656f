"""What clang's counters say of lines and branches: the same as llvm-cov says, line by line."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.compile import compile_source, find_compiler
from pytest_bpf.coverage.counters import FLAGS
from pytest_bpf.coverage.elf import Elf
from pytest_bpf.coverage.evaluation import Build
from pytest_bpf.coverage.regions import CountedRegion, line_counts
from pytest_bpf.coverage.values import Branch, FileLines, merge
from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXAMPLES = sorted((Path(__file__).parents[1] / "bpf_examples").glob("*/*.bpf.c"))
SOURCES = os.environ.get("PYTEST_BPF_LINES_SOURCES", "").split()
"""More sources to compare with llvm-cov, for a longer run."""

LLVM_COV = shutil.which("llvm-cov-14")

Lines = dict[str, dict[int, int]]
Branches = dict[str, Counter[tuple[int, int]]]


def _counts(build: Build) -> tuple[list[int], str]:
    """Return made-up counters that no difference makes negative, and as a profile in text."""
    counts = [0] * build.counters.count
    elf, profile = Elf(build.original), []
    for index in elf.named("__llvm_prf_data"):
        number, checksum = struct.unpack_from("=QQ", elf.raw(index))
        size = struct.unpack_from("=I", elf.raw(index), 40)[0]
        start = build.counters.starts[number]
        own = [2**30 >> i if i <= number % (size + 1) else 0 for i in range(size)]
        counts[start : start + size] = own
        profile += [build.names[number], str(checksum), str(size), *map(str, own), ""]
    return counts, "\n".join(profile)


def _llvm_cov(build: Build, profile: str, folder: Path) -> tuple[Lines, Branches]:
    (folder / "profile.txt").write_text(profile)
    (folder / "object.o").write_bytes(build.original)
    indexed = str(folder / "profile")
    merge_command = ("llvm-profdata-14", "merge", "-o", indexed, str(folder / "profile.txt"))
    subprocess.run(merge_command, check=True)
    export = ("llvm-cov-14", "export", "-format=lcov", f"-instr-profile={indexed}")
    done = subprocess.run(
        (*export, str(folder / "object.o")), capture_output=True, text=True, check=True
    )
    lines: Lines = {}
    branches: Branches = {}
    path = ""
    for text in done.stdout.splitlines():
        kind, _, value = text.partition(":")
        fields = value.split(",")
        if kind == "SF":
            path = value
            lines[path], branches[path] = {}, Counter()
        elif kind == "DA":
            lines[path][int(fields[0])] = int(fields[1])
        elif kind == "BRDA":
            taken = 0 if fields[3] == "-" else int(fields[3])
            branches[path][int(fields[0]), int(fields[2]) % 2] += taken
    return lines, branches


def _ours(files: Sequence[FileLines]) -> Iterator[tuple[str, Counter[tuple[int, int]]]]:
    for file in files:
        counts: Counter[tuple[int, int]] = Counter()
        for branch in file.branches:
            counts[branch.line, 0] += branch.true
            counts[branch.line, 1] += branch.false
        yield file.path, counts


@pytest.mark.skipif(LLVM_COV is None, reason="no llvm-cov-14; install llvm-14")
@pytest.mark.parametrize(
    "source", [*EXAMPLES, *SOURCES], ids=lambda s: "/".join(Path(s).parts[-2:])
)
def test_lines_and_branches_are_those_of_llvm_cov(source: Path | str, tmp_path: Path) -> None:
    try:
        compiled = compile_source(source, compiler="clang-14", flags=FLAGS)
    except BpfError as error:
        pytest.skip(str(error))
    build = Build(compiled.object.read_bytes())
    counts, profile = _counts(build)
    files = build.files(counts)
    lines, branches = _llvm_cov(build, profile, tmp_path)
    assert {file.path: dict(file.lines) for file in files} == lines
    assert dict(_ours(files)) == branches


def test_the_newest_compiler_s_mapping_is_read() -> None:
    text = "static int f(int a)\n{\n\tif (a > 2)\n\t\treturn 1;\n\treturn 0;\n}\n"
    text += "int g(int a)\n{\n\treturn f(a);\n}\n"
    compiled = compile_source(text, name="f", compiler=find_compiler(), flags=FLAGS)
    build = Build(compiled.object.read_bytes())
    counts = [0] * build.counters.count
    by_name = {build.names[n]: at for n, at in build.counters.starts.items()}
    start = next(at for name, at in by_name.items() if name.endswith("f"))
    counts[start : start + 2] = [10, 3]
    (file,) = build.files(counts)
    assert {3: 10, 4: 3, 5: 7}.items() <= file.lines.items()
    assert [(b.line, b.true, b.false) for b in file.branches] == [(3, 3, 7)]
    assert {(f.name, f.count) for f in file.functions} == {("f", 10), ("g", 0)}


def test_a_line_between_two_regions_has_no_count() -> None:
    regions = [CountedRegion(0, (1, 5), (3, 2), 4), CountedRegion(0, (7, 1), (9, 2), 0)]
    assert line_counts(regions) == {1: 4, 2: 4, 3: 4, 7: 0, 8: 0, 9: 0}


def test_counts_of_two_builds_are_added_and_dead_is_what_both_call_dead() -> None:
    one = FileLines("/x.c", {1: 2, 3: 0}, (Branch(1, 2, 1, 4, 1, 0),), dead=frozenset({3}))
    other = FileLines("/x.c", {1: 1, 3: 0, 4: 0}, (Branch(1, 2, 1, 4, 0, 5),), dead=frozenset({4}))
    (both,) = merge([one, other])
    assert both.lines == {1: 3, 3: 0, 4: 0}
    assert both.branches == (Branch(1, 2, 1, 4, 1, 5),)
    assert both.dead == {4}
    assert FileLines.from_dict(both.as_dict()) == both
