"""``pytest-bpf top``: as a table, as JSON, live on a terminal; and what it needs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.costs.activity import Look, MapActivity, ProgramActivity, between
from pytest_bpf.reports import top
from tests.nobody import AS_NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf import Loader, Object

COMMAND = (sys.executable, "-m", "pytest_bpf", "top")

COUNT = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1000);
	__type(key, __u32);
	__type(value, __u64);
} watched_table SEC(".maps");
SEC("xdp") int a_program_to_be_watched(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u64 value = 1;

	bpf_map_update_elem(&watched_table, &key, &value, BPF_ANY);
	return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def watched(bpf: Loader) -> Object:
    return bpf.load(COUNT, name="watched")


def program(number: int, runs: int, spent: int, **rest: Any) -> ProgramActivity:
    fields = {"runs_per_second": 0.0, "ns_per_run": 0.0, "cpu": 0.0, "memory": 4096}
    return ProgramActivity(number, "p", "xdp", runs, spent, machine_code=100, **{**fields, **rest})


def test_activity_is_what_happened_between_two_looks() -> None:
    table = MapActivity(3, "m", "hash", 10, 1000)
    before = Look(10.0, {1: program(1, 100, 5000), 2: program(2, 7, 7)}, (table,))
    after = Look(12.0, {1: program(1, 300, 45_000), 4: program(4, 10, 1000)}, (table,))
    activity = between(before, after)
    busy, new = activity.programs
    assert (busy.id, busy.runs, busy.run_time_ns) == (1, 200, 40_000)
    assert (busy.runs_per_second, busy.ns_per_run, busy.cpu) == (100.0, 200.0, 40_000 / 2e9)
    assert (new.id, new.runs, new.ns_per_run) == (4, 10, 100.0)
    assert activity.memory == 4096 * 2 + 1000


def test_program_that_did_not_run_took_nothing() -> None:
    look = Look(1.0, {1: program(1, 5, 50)}, ())
    (idle,) = between(look, Look(2.0, look.programs, ())).programs
    assert (idle.runs, idle.ns_per_run, idle.cpu) == (0, 0.0, 0.0)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = (*COMMAND, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_json_has_every_program_and_map(watched: Object) -> None:
    done = run("--once", "--json", "--interval", "0.05")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    programs = {one["id"]: one for one in told["programs"]}
    maps = {one["id"]: one for one in told["maps"]}
    own = programs[watched.programs["a_program_to_be_watched"].id]
    table = watched.maps["watched_table"]
    assert own["name"] == "a_program_to_be_watched"
    assert own["machine_code"] == watched.programs["a_program_to_be_watched"].prog_size_jited
    assert own["memory"] > 0
    assert maps[table.id]["max_entries"] == 1000
    assert maps[table.id]["memory"] == table.memlock
    assert told["seconds"] >= 0.05


def test_runs_are_counted_while_it_looks(
    watched: Object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = watched.programs["a_program_to_be_watched"]
    monkeypatch.setattr(time, "sleep", lambda _: own.test_run(bytes(64), repeat=500))
    assert top.main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = (one for one in told["programs"] if one["id"] == own.id)
    assert row["runs"] == 500
    assert row["run_time_ns"] == own.run_time_ns
    assert row["cpu"] == pytest.approx(own.run_time_ns / told["seconds"] / 1e9)


@pytest.mark.usefixtures("watched")
def test_without_a_terminal_it_prints_one_table() -> None:
    pytest.importorskip("rich")
    done = run("--interval", "0.05", "--name", "watched")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ +a_program_to_be_watched +xdp +0 +- +0\.00%", done.stdout)
    assert re.search(r"\d+ +watched_table +hash +1,000 +[\d.]+ kB", done.stdout)
    assert "\x1b" not in done.stdout


def test_without_rich_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('no rich')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run("--once", env=environment)
    assert done.returncode == 1
    assert "pip install 'pytest-bpf[top]'" in done.stderr
    assert run("--json", "--interval", "0.05", env=environment).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_without_privilege_it_says_so_in_one_sentence() -> None:
    done = subprocess.run(
        (*AS_NOBODY, *COMMAND, "--json"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("pytest-bpf top: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--interval", "0"], "must be from 0.01 to 3600 seconds"),
        (["--sort", "colour"], "invalid choice: 'colour'"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ends = pty.openpty()
    yield ends
    os.close(ends[0])


@pytest.mark.usefixtures("watched")
def test_live_it_refreshes_until_ctrl_c(terminal: tuple[int, int]) -> None:
    pytest.importorskip("rich")
    ours, its = terminal
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    with subprocess.Popen(
        (*COMMAND, "--interval", "0.05", "--name", "watched"),
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(its)
        shown = read_until(ours, rb"(?s)a_program_to_be_watched.*a_program_to_be_watched")
        process.send_signal(signal.SIGINT)
        rest = read_until(ours, None)
        assert process.wait(10) == 0
    assert shown.count(b"a_program_to_be_watched") >= 2
    assert b"\x1b[?1049h" in shown  # the other screen
    assert b"\x1b[?1049l" in rest  # and back
    assert b"Traceback" not in rest


def read_until(descriptor: int, pattern: bytes | None) -> bytes:
    """Read a terminal until the pattern was there; without one until the other side closes it."""
    read, end = b"", time.monotonic() + 30
    while time.monotonic() < end and not (pattern and re.search(pattern, read)):
        if select.select([descriptor], [], [], 0.5)[0]:
            try:
                data = os.read(descriptor, 65_536)
            except OSError:  # EIO: the last process that had it is gone
                break
            if not data:
                break
            read += data
    return read
