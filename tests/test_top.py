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
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.costs.instruments.activity import (
    Activity,
    Look,
    MapActivity,
    ProgramActivity,
    between,
)
from pytest_bpf.kernel.sys.release import kernel_version
from pytest_bpf.objects.search.attachments import attach_points
from pytest_bpf.reports import top
from tests.nobody import AS_NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf import Cgroup, Loader, Namespace, Object
    from pytest_bpf.netns.places import Places

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
        assert process.wait(120) == 0
    assert shown.count(b"a_program_to_be_watched") >= 2
    assert b"\x1b[?1049h" in shown  # the other screen
    assert b"\x1b[?1049l" in rest  # and back
    assert b"Traceback" not in rest


@pytest.mark.usefixtures("watched")
def test_live_it_sorts_filters_and_quits_by_keys(terminal: tuple[int, int]) -> None:
    pytest.importorskip("rich")
    ours, its = terminal
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    before = termios.tcgetattr(its)
    with subprocess.Popen(
        (*COMMAND, "--interval", "30"),
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            read_until(ours, rb"\x1b\[\?1049h")  # the other screen: keys are read from here on
            os.write(ours, b"/no such name\r")
            assert b"filter: no such name" in read_until(ours, rb"filter: no such name ")
            os.write(ours, b"mq")
            rest = read_until(ours, rb"\x1b\[\?1049l")
            assert process.wait(120) == 0
        finally:
            process.kill()
    assert b"Traceback" not in rest
    assert termios.tcgetattr(its)[3] == before[3]  # echo, as before
    os.close(its)


def read_until(descriptor: int, pattern: bytes | None) -> bytes:
    """Read a terminal until the pattern was there; without one until the other side closes it."""
    read, end = b"", time.monotonic() + 120
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


def test_only_what_a_process_holds_open_of_a_type_is_shown(watched: Object) -> None:
    arguments = ("--json", "--interval", "0.05", "--pid", str(os.getpid()))
    activity = json.loads(run(*arguments, "--type", "xdp").stdout)
    assert [one["id"] for one in activity["programs"]] == [
        watched.programs["a_program_to_be_watched"].id
    ]
    assert activity["maps"] == []
    activity = json.loads(run(*arguments, "--type", "hash", "--sort", "name").stdout)
    names = [one["name"] for one in activity["maps"]]  # what counts drops may be open, too
    assert "watched_table" in names
    assert names == sorted(names)


ATTACHED = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("xdp") int on_xdp(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tc") int on_tc(struct __sk_buff *skb) { return 0; }
SEC("cgroup_skb/egress") int on_cgroup(struct __sk_buff *skb) { return 1; }
SEC("raw_tp/sched_switch") int on_raw(void *ctx) { return 0; }
SEC("tp_btf/sched_switch") int on_btf(void *ctx) { return 0; }
SEC("tracepoint/sched/sched_switch") int on_tracepoint(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""


def test_programs_are_shown_by_what_they_are_attached_to(
    bpf: Loader, bpf_netns: Namespace, bpf_cgroup: Cgroup
) -> None:
    programs = bpf.load(ATTACHED, name="attached").programs
    programs["on_xdp"].attach(bpf_netns.lo)
    programs["on_tc"].attach(bpf_netns.lo, mode="clsact", direction="ingress")
    programs["on_cgroup"].attach(bpf_cgroup)
    for name in ("on_raw", "on_btf", "on_tracepoint"):
        programs[name].attach()
    points = bpf_netns.run(attach_points)
    places = {name: points.get(program.id, ()) for name, program in programs.items()}
    assert places["on_xdp"] == ("lo xdp",)
    assert places["on_tc"] == ("lo tc ingress",)
    assert [place.partition(" ")[2] for place in places["on_cgroup"]] == ["cgroup_inet_egress"]
    assert places["on_cgroup"][0].startswith("/")
    assert places["on_raw"] == ("raw_tp sched_switch",)
    assert places["on_btf"] == ("raw_tp sched_switch",) or "sched_switch" in places["on_btf"][0]
    if kernel_version() >= (6, 6):
        assert places["on_tracepoint"] == ("tracepoint sched_switch",)
    done = run("--json", "--interval", "0.05", "--attached", "sched_switch", "--name", "on_raw")
    (row,) = json.loads(done.stdout)["programs"]
    assert (row["id"], row["attached"]) == (programs["on_raw"].id, ["raw_tp sched_switch"])
    done = run("--json", "--interval", "0.05", "--attached", "no such place")
    assert json.loads(done.stdout)["programs"] == json.loads(done.stdout)["maps"] == []


def test_a_link_of_another_namespace_has_no_name_of_here(bpf: Loader, bpf_places: Places) -> None:
    here, there = bpf_places.namespace("here"), bpf_places.namespace("there")
    program = bpf.load(ATTACHED, name="attached", programs=["on_xdp"]).programs["on_xdp"]
    program.attach(there.lo)
    assert here.lo.ifindex == there.lo.ifindex == 1
    assert here.run(attach_points)[program.id] == ("interface 1 xdp",)
    assert there.run(attach_points)[program.id] == ("lo xdp",)


def test_a_reader_that_has_enough_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = (*COMMAND, "--json", "--interval", "0.05")
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 128 + signal.SIGPIPE


def test_busy_programs_have_a_colour_and_a_history() -> None:
    from rich.console import Console

    busy = program(1, 100, 5000, cpu=0.2)
    activity = Activity(1.0, (busy, program(2, 1, 1)), ())
    console = Console(width=160, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(top.tables(activity, history={1: [0.0, 0.1, 0.2], 2: [0.0]}))
    lines = capture.get().splitlines()
    assert ["▄█" in line for line in lines if "\x1b[31m" in line] == [True]
