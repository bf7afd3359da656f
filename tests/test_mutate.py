"""Small mistakes in sources, and what becomes of them in the tests of a repository."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.commands.mutants import mutants, tokens
from pytest_bpf.commands.mutate import main
from pytest_bpf.commands.warm_pytest import WarmPytest
from pytest_bpf.compile import find_compiler

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """\
#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#define MOST (5 < 6 && \\
	1 == 1)
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
	__type(key, __u32); __type(value, __u64); } packets SEC(".maps");

SEC("xdp")
int filter(struct xdp_md *ctx)	/* a < b */
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct udphdr *udp = data + 34;
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&packets, &key);

	if (count)
		__sync_fetch_and_add(count, 1);
	if (data + 42 > end)
		return XDP_PASS;
	if (udp->dest == bpf_htons(4242))
		return XDP_DROP;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
"""
TESTS = """\
from pytest_bpf.traffic.packets import udp_frame


def test_port(bpf):
    program = bpf.load("filter.bpf.c").programs["filter"]
    assert program.test_run(udp_frame(dport=4242, payload=b"long")).retval == 1
    assert program.test_run(udp_frame(dport=4243, payload=b"long")).retval == 2
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "filter.bpf.c").write_text(SOURCE)
    (folder / "test_filter.py").write_text(TESTS)
    monkeypatch.chdir(folder)
    return folder


def found(project: Path) -> set[tuple[str, int, str, str]]:
    source = project / "filter.bpf.c"
    listing = tokens(source, find_compiler())
    return {(m.what, m.line, m.old, m.new) for m in mutants(listing, source.read_bytes())}


def test_mistakes_are_made_where_code_stands(project: Path) -> None:
    every = found(project)
    assert {
        ("bound off by one", 19, ">", ">="),
        ("comparison turned", 21, "==", "!="),
        ("byte order forgotten", 21, "bpf_htons", ""),
        ("constant changed", 21, "4242", "4243"),
        ("atomic made plain", 18, "__sync_fetch_and_add(count, 1)", "(*(count) += (1))"),
        ("check removed", 19, "(", "(0 && "),
        ("early return dropped", 20, "return", "if (0) return"),
        ("verdict changed", 22, "XDP_DROP", "XDP_PASS"),
    } <= every
    assert not [m for m in every if m[1] in {4, 5, 10, 11}]  # macros, comments, declarations
    assert not [m for m in every if m[1] == 12 and m[0] == "arithmetic turned"]


def test_a_mistake_changes_one_place(project: Path) -> None:
    source = project / "filter.bpf.c"
    text = source.read_text()
    for mutant in mutants(tokens(source, find_compiler()), text.encode()):
        changed = mutant.apply(text).splitlines()
        different = [
            n for n, (a, b) in enumerate(zip(text.splitlines(), changed, strict=True)) if a != b
        ]
        assert different == [mutant.line - 1]
        assert mutant.diff(text, "filter.bpf.c").startswith("--- filter.bpf.c\n+++ filter.bpf.c\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
def test_survivors_are_shown_and_what_would_show_them(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(*_: object) -> list[object]:
        every = mutants(tokens(project / "filter.bpf.c", find_compiler()), SOURCE.encode())
        wanted = {(19, "bound off by one"), (21, "byte order forgotten"), (19, "check removed")}
        return [("filter.bpf.c", m) for m in every if (m.line, m.what) in wanted]

    monkeypatch.setattr("pytest_bpf.commands.mutate._choose", some)
    status = main(
        ["filter.bpf.c", "--json", "out.json", "--html", "out.html", "--fail-under", "80"]
    )
    text = capsys.readouterr().out
    assert status == 1, text
    assert "filter.bpf.c:19: bound off by one: survived" in text
    assert "+\tif (data + 42 >= end)" in text
    assert "a test would see it by this: 'filter' before and 'filter' after differ" in text
    assert "packet, 42 bytes: " in text
    assert "score 50 %: of 2 mutants that load, the tests see 1" in text
    result = json.loads((project / "out.json").read_text())
    assert [result[state] for state in ("killed", "survived", "rejected")] == [1, 1, 1]
    page = (project / "out.html").read_text()
    assert "<h1>Score 50 %</h1>" in page
    assert "+\tif (data + 42 &gt;= end)" in page
    states = {m["what"]: (m["state"], m["by"]) for m in result["mutants"]}
    assert states["byte order forgotten"] == ("killed", "test_port")
    assert states["check removed"][0] == "rejected"
    assert sorted(path.name for path in project.glob("*.c")) == ["filter.bpf.c"]


@pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
def test_tests_that_fail_as_they_are_say_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "test_filter.py").write_text("def test_it():\n    assert False\n")
    assert main(["filter.bpf.c"]) == 2
    assert "the tests fail as they are" in capsys.readouterr().err


def test_tests_that_fail_in_a_copy_are_said(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"import os\n\ndef test_it():\n    assert os.getcwd() == {str(project)!r}\n"
    (project / "test_place.py").write_text(text)
    assert main(["filter.bpf.c", "--limit", "2"]) == 2
    error = capsys.readouterr().err
    assert "the tests pass where they are, but not in a copy of this folder" in error
    assert "test_place.py::test_it" in error


def test_sessions_share_no_module_and_end_in_time(project: Path) -> None:
    (project / "own.py").write_text("count = 0\n")
    test = "import own, signal\ndef test_it():\n    own.count += 1\n    assert own.count == 1\n"
    with closing(WarmPytest(project / "filter.bpf.c")) as warm:
        own = ("-q", "-p", "no:cacheprovider")
        for text, status in ((test, 0), (test, 0), (f"{test}    assert not own.count", 1)):
            (project / "test_own.py").write_text(text)
            done = warm.run(project, (*own, "test_own.py"), 120)
            assert done.status == status, done.output
        (project / "test_own.py").write_text(f"{test}    signal.pause()\n")
        assert warm.run(project, (*own, "test_own.py"), 1).status is None
        (project / "test_own.py").write_text(test)
        assert warm.run(project, (*own, "test_own.py"), 120).status == 0


CONFTEST = """
import platform
asked, platform.python_implementation = platform.python_implementation, lambda: "own"
import wsgiref.simple_server
platform.python_implementation = asked
"""
MINDFUL = """
from wsgiref.simple_server import sys_version

def test_what_was_set_before_the_import():
    assert sys_version.startswith("own/")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
def test_sessions_are_as_those_of_a_process_of_their_own(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For tests that make errors of warnings, and for packages that mind what was set before."""
    (project / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (project / "conftest.py").write_text(CONFTEST)
    (project / "test_mindful.py").write_text(MINDFUL)
    status = main(["filter.bpf.c", "--limit", "4", "--jobs", "1"])
    output = capsys.readouterr()
    assert status == 0, output.err
    assert "survived" in output.out.splitlines()[-2]  # so the tests passed


CLAIMS = """
import atexit, threading
from pathlib import Path
from pytest_bpf.kernel.sys import names

def test_leaves_things_to_the_end():
    threading.Thread(target=lambda: names.claim(Path("claimed"), Path.unlink)).start()
    Path("claimed").touch()
    atexit.register(Path("at the end").touch)
    atexit.register(print, "said at the end")
    threading.Thread(target=threading.main_thread().join).start()
"""


def test_a_session_takes_down_what_it_made(project: Path) -> None:
    """As a process of its own would, though it is a fork."""
    (project / "test_claims.py").write_text(CLAIMS)
    with closing(WarmPytest(project / "filter.bpf.c")) as warm:
        done = warm.run(project, ("-q", "-p", "no:cacheprovider", "test_claims.py"), 120)
    assert done.status == 0, done.output
    assert not (project / "claimed").exists()
    assert (project / "at the end").exists()
    assert done.output.endswith("said at the end\n")
