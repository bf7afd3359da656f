"""``pytest-bpf regression``: tests of inputs that failed, which `bpf_fuzz` kept."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import ValueTypeError
from pytest_bpf.fuzz.corpus import read_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.fuzz.corpus import Failure

HEAD = '"""Inputs that failed once; `pytest-bpf regression` adds them."""\n'

TEST = """

def test_{name}(bpf_fuzz):
    bpf_fuzz(
        {source!r},
        {invariant},
        program={program!r},
        after={after},
        replay=[
{inputs}
        ],
    )
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; the status is 2 for a file that no test can be made of."""
    options = parser().parse_args(arguments)
    output: Path = options.output
    try:
        text = output.read_text("utf-8") if output.exists() else HEAD
        for path in options.failures:
            text = _with_test(text, path, options.source)
        output.write_text(text, "utf-8")
    except (ValueTypeError, OSError) as error:
        print(f"pytest-bpf regression: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {text.count('def test_')} tests")
    return 0


def _with_test(text: str, path: Path, source: str) -> str:
    """Return the text of a file of tests with one more, unless it is there."""
    failure = read_failure(path)
    name = path.name.partition(".")[0].replace("-", "_")
    if f"def test_{name}(" in text:
        return text
    test = TEST.format(
        name=name,
        source=_source(failure, path, source),
        program=failure.program or None,
        invariant=failure.invariant or None,
        after=failure.after or None,
        inputs="\n".join(f'            bytes.fromhex("{data.hex()}"),' for data in failure.inputs),
    )
    return _with_imports(text, failure, path) + test


def _source(failure: Failure, path: Path, source: str) -> str:
    found = source or failure.source
    if not found or "\n" in found:
        raise ValueTypeError(
            f"{path} does not say what was loaded: the test had an object or C text; say by "
            "--source which source it is"
        )
    return found


def _with_imports(text: str, failure: Failure, path: Path) -> str:
    """Return the text with the functions imported that the test asks."""
    for name in filter(None, (failure.invariant, failure.after)):
        if not name.isidentifier():
            raise ValueTypeError(
                f"{path}: {name} is no function of a module, so that another test cannot ask it; "
                "move it to the top of its file"
            )
        line = f"from {failure.module} import {name}\n"
        if line not in text:
            head, end, rest = text.partition('"""\n')
            text = f"{head}{end}\n{line}{rest.lstrip()}" if end else f"{line}{text}"
    return text


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf regression",
        description="Write a test of each input that failed and that bpf_fuzz kept in a folder.",
    )
    add = result.add_argument
    add("failures", nargs="+", type=Path, metavar="FILE", help="a file ...failure.json")
    add("--source", default="", help="the source to load, where the file does not say it")
    add(
        "--output",
        type=Path,
        default=Path("test_regressions.py"),
        metavar="FILE",
        help="the tests, to which these are added (default: test_regressions.py)",
    )
    return result
