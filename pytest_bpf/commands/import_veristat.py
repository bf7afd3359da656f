"""``pytest-bpf import``: veristat's CSV becomes a test with the same figures as limits."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError
from pytest_bpf.reports.veristat import read_veristat

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = '''\
"""What veristat measured, as limits; `pytest-bpf import` wrote this file."""

from pathlib import Path

import pytest

from pytest_bpf import VerifierError

ROOT = Path(__file__).parent

LIMITS = [
    # object, program, instructions that the verifier processed at most
'''
TAIL = """\
]


@pytest.mark.parametrize(("file", "program", "most"), LIMITS)
def test_verified_insns(bpf, file, program, most):
    obj = bpf.load(ROOT / file, programs=[program])
    assert obj.programs[program].verified_insns <= most
"""
REJECTED = """

REJECTED = [
%s]


@pytest.mark.parametrize(("file", "program"), REJECTED)
def test_is_rejected(bpf, file, program):
    with pytest.raises(VerifierError):
        bpf.load(ROOT / file, programs=[program])
"""


@dataclass(frozen=True)
class VeristatRow:
    """One program of veristat's table; ``insns`` is None for one that was rejected."""

    file: str
    program: str
    insns: int | None


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf import", description="Make a test of veristat's figures (veristat -o csv)."
    )
    result.add_argument("csv", type=Path, help="what veristat wrote")
    result.add_argument("--objects", default=Path(), type=Path, help="where the objects are")
    result.add_argument("--output", "-o", default=Path("test_veristat.py"), type=Path)
    return result


def main(arguments: Sequence[str]) -> int:
    """Write a test for a CSV of veristat; return the exit status."""
    options = parser().parse_args(arguments)
    if options.output.exists():
        print(f"pytest-bpf import: {options.output} is there already", file=sys.stderr)
        return 1
    try:
        rows = read_rows(options.csv)
        places = {row.file: find_object(row.file, options.objects) for row in rows}
    except (BpfError, OSError, UnicodeError) as error:
        print(f"pytest-bpf import: {error}", file=sys.stderr)
        return 1
    root = options.output.absolute().parent
    files = {name: os.path.relpath(path, root) for name, path in places.items()}
    options.output.write_text(test_text(rows, files), encoding="utf-8")
    print(f"wrote {options.output}: {len(rows)} programs of {len(files)} objects")
    return 0


def read_rows(path: Path) -> list[VeristatRow]:
    """Return the programs of a CSV of veristat; raises `BpfError` for what is none."""
    results = read_veristat(path.read_text(encoding="utf-8"), str(path))
    rows = [
        VeristatRow(key.test, key.subject.partition(" ")[2], None if value is None else int(value))
        for key, value in ((key, figure.value) for key, figure in results.figures.items())
        if key.metric == "verified_insns"
    ]
    if not rows:
        raise BpfError(f"{path} has no total_insns of a program; write it with veristat -o csv")
    return rows


def find_object(name: str, folder: Path) -> Path:
    """Return the object of a name, in or below a folder; veristat tells no folders."""
    matching = sorted(folder.rglob(Path(name).name))
    if not matching:
        raise BpfError(f"there is no {name} in {folder.absolute()}; say --objects FOLDER")
    if len(matching) > 1:
        others = ", ".join(map(str, matching[:3]))
        raise BpfError(f"{name} is there {len(matching)} times ({others}); say --objects FOLDER")
    return matching[0].absolute()


def test_text(rows: Sequence[VeristatRow], files: dict[str, str]) -> str:
    """Return the text of the test; ``files`` are the objects from its folder."""
    limits = "".join(
        f'    ("{files[row.file]}", "{row.program}", {row.insns}),\n'
        for row in rows
        if row.insns is not None
    )
    rejected = "".join(
        f'    ("{files[row.file]}", "{row.program}"),\n' for row in rows if row.insns is None
    )
    head = HEAD if rejected else HEAD.replace("from pytest_bpf import VerifierError\n\n", "")
    return head + limits + TAIL + (REJECTED % rejected if rejected else "")
