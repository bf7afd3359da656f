"""Smoke tests as text: what a program's kind says can be tried with it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.kinds.programs import parse_section, program_kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_bpf.commands.load_arguments import LoadArguments
    from pytest_bpf.kinds.program_kind import ProgramKind
    from pytest_bpf.objects.loading.open_object import OpenObject


@dataclass(frozen=True)
class SmokeProgram:
    """A program of an object: its name, section, and kind."""

    name: str
    section: str
    kind: ProgramKind


@dataclass(frozen=True)
class SmokeObject:
    """A source from the repository's root, its fixture, its programs, and how it is loaded."""

    source: Path
    fixture: str
    programs: tuple[SmokeProgram, ...]
    arguments: LoadArguments

    @property
    def test_file(self) -> str:
        """The name of the file with its tests."""
        return f"test_{self.fixture}.py"


@dataclass(frozen=True)
class SmokeTest:
    """One test function: its name, and its text."""

    name: str
    text: str


def quoted(text: str) -> str:
    """Return a text as Python writes it between double quotes."""
    return json.dumps(text, ensure_ascii=False)


def smoke_object(source: Path, obj: OpenObject, arguments: LoadArguments) -> SmokeObject:
    """Return what is tried with an open object; ``source`` starts at the repository's root."""
    programs = tuple(
        SmokeProgram(
            name,
            program.section,
            program_kind(program.type, program.section, int(program.expected_attach_type)),
        )
        for name, program in obj.programs.items()
        if program.autoload and name not in arguments.skip
    )
    return SmokeObject(source, _identifier(source), programs, arguments)


def _identifier(source: Path) -> str:
    stem = source.name.removesuffix(".c").removesuffix(".bpf")
    name = re.sub(r"\W", "_", f"{stem}_bpf", flags=re.ASCII).lower()
    return name if name.isidentifier() else f"source_{name}"


def smoke_tests(obj: SmokeObject) -> list[SmokeTest]:
    """Return the tests of an object: it loads; each of its programs attaches, and runs."""
    names = "".join(f'        "{program.name}",\n' for program in obj.programs)
    loads = SmokeTest(
        "test_loads",
        f"def test_loads({obj.fixture}):\n"
        f"    assert set({obj.fixture}.programs) == {{\n{names}    }}\n",
    )
    tests = [loads]
    for program in obj.programs:
        tests.extend(
            SmokeTest(name, text)
            for name, text in (_attaches(program, obj.fixture), _runs(program, obj.fixture))
            if text
        )
    return tests


PLACES = {"a cgroup": "bpf_cgroup", "a network namespace": "bpf_netns"}
"""The fixtures that give what a program attaches to, by the target of its kind."""


def _attaches(program: SmokeProgram, fixture: str) -> tuple[str, str]:
    name = f"test_{program.name}_attaches"
    target = program.kind.target
    quoted = f'{fixture}.programs["{program.name}"]'
    if not program.kind.way:
        return name, ""
    section = parse_section(program.section)
    if target == "an interface":
        says = "ingress" in program.section or "egress" in program.section
        direction = (
            "" if says or "direction" not in program.kind.options else ', direction="ingress"'
        )
        body = (
            "    left, right = bpf_netns_pair\n"
            f"    link = {quoted}.attach(right.iface{direction})\n"
            "    left.traffic.udp(to=right, count=10)\n"
            "    assert link.attached\n"
        )
        return name, f"def {name}({fixture}, bpf_netns_pair):\n{body}"
    if target in PLACES:
        place = PLACES[target]
        body = f"    link = {quoted}.attach({place})\n    assert link.attached\n"
        return name, f"def {name}({fixture}, {place}):\n{body}"
    if program.kind.name == "perf_event" or (not target and section and section.target):
        body = f"    link = {quoted}.attach()\n    assert link.attached\n"
        return name, f"def {name}({fixture}):\n{body}"
    return name, ""


def _runs(program: SmokeProgram, fixture: str) -> tuple[str, str]:
    """Return a test that records what a run costs, for programs that a packet can be given to."""
    name = f"test_{program.name}_costs"
    if program.kind.test_run != "packet":
        return name, ""
    body = (
        f'    program = {fixture}.programs["{program.name}"]\n'
        "    bpf_measure(program, lambda: program.test_run(udp_frame(), repeat=100))\n"
    )
    mark = "@pytest.mark.bpf_budget\n"
    return name, f"{mark}def {name}({fixture}, bpf_measure):\n{body}"


def test_file(obj: SmokeObject, tests: Sequence[SmokeTest]) -> str:
    """Return the text of an object's test file."""
    text = "\n\n".join(test.text for test in tests)
    imports = ""
    if "pytest.mark" in text:
        imports += "import pytest\n\n"
    if "udp_frame" in text:
        imports += "from pytest_bpf.traffic.packets import udp_frame\n\n"
    name = quoted(str(obj.source))[1:-1]
    return f'"""Smoke tests of {name}: a start, to be changed."""\n\n{imports}\n{text}'


def conftest(objects: Sequence[SmokeObject], root: str) -> str:
    """Return the text of the conftest: a fixture for each object; ``root`` is an expression."""
    text = (
        '"""The BPF objects of this repository, each a fixture."""\n\n'
        "from pathlib import Path\n\nimport pytest\n\n"
        f"ROOT = {root}\n"
    )
    for obj in objects:
        text += (
            f"\n\n@pytest.fixture\ndef {obj.fixture}(bpf):\n"
            f"    return bpf.load({_call_arguments(obj)})\n"
        )
    return text


def _call_arguments(obj: SmokeObject) -> str:
    words = [f"ROOT / {quoted(obj.source.as_posix())}", *obj.arguments.words]
    if len(words) == 1:
        return words[0]
    return "".join(f"\n        {word}," for word in words) + "\n    "
