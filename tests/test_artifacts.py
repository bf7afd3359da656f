"""What is kept of a failed test, in a folder for each, by sessions in processes of their own."""

from __future__ import annotations

import gzip
import json
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.budgets import results
from pytest_bpf.kernel.sys import libc
from pytest_bpf.plugin.artifacts.captures import MOST, Captures
from pytest_bpf.plugin.artifacts.collecting import collect
from pytest_bpf.plugin.artifacts.evidence import Failure
from pytest_bpf.plugin.artifacts.files import MOST_OF_FILE, MOST_OF_TEST, Gathering
from pytest_bpf.plugin.artifacts.folder import Folder, folder_name, pack, unpack
from pytest_bpf.plugin.artifacts.observing import Observer
from pytest_bpf.plugin.artifacts.path import MOST_PRINTED, MOST_STEPS, path_lines
from pytest_bpf.plugin.artifacts.path import Path as PathOfTest
from tests.failing_project import TESTS, C

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_bpf import Loader
    from pytest_bpf.netns import Topology


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with tests that fail, and one that passes."""
    (pytester.path / "failing.bpf.c").write_text(C)
    (pytester.path / "test_failing.py").write_text(
        TESTS + "\n\ndef test_passes(bpf):\n    bpf.load('failing.bpf.c', programs=['count'])\n"
    )
    return pytester


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    chosen = "test_wrong_verdict or test_full_map or test_passes"
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", chosen, *arguments)


def folders(path: Path) -> set[str]:
    return {folder.name for folder in path.iterdir()}


def test_a_failed_test_leaves_a_folder_that_says_what_went_wrong(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t-of-the-environment")
    result = run(project, "--bpf-artifacts=kept", "-n1")
    result.assert_outcomes(passed=1, failed=2)
    kept = project.path / "kept"
    result.stdout.fnmatch_lines([f"bpf: artifacts of 2 tests: {kept}"])
    assert folders(kept) == {
        "test_failing.py-test_wrong_verdict",
        "test_failing.py-test_full_map",
    }
    test = kept / "test_failing.py-test_full_map"
    report = (test / "report.txt").read_text()
    assert "assert 4 == 8" in report
    assert "hint: map 'ports' (hash) is full" in report
    ports = json.loads((test / "maps/failing.ports.json").read_text())
    assert ports["elements"] == 4
    assert sorted(ports["first"]) == [[port << 8, 1] for port in range(1, 5)]
    assert "failing.bpf.c:" in (test / "programs/failing.by_port.xlated.txt").read_text()
    assert "processed" in (test / "programs/failing.by_port.verifier.log").read_text()
    assert (test / "objects/failing.bpf.o").read_bytes().startswith(b"\x7fELF")
    assert b"int by_port(" in gzip.decompress((test / "objects/failing.i.gz").read_bytes())
    assert "-m pytest test_failing.py::test_full_map" in (test / "reproduce.txt").read_text()
    state = json.loads((test / "state.json").read_text())
    assert state["programs"][0]["runs"] == 8
    printed = kept / "test_failing.py-test_wrong_verdict/printk.txt"
    assert printed.read_text() == "count saw packet 1"
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert not [path for path in files if b"s3cr3t-of-the-environment" in path.read_bytes()]


def test_all_are_kept_or_none(project: pytest.Pytester) -> None:
    run(project, "--bpf-artifacts=kept", "--bpf-artifacts-keep=all", "-k", "test_passes")
    assert folders(project.path / "kept") == {"test_failing.py-test_passes"}
    run(project, "--bpf-artifacts=other", "--bpf-artifacts-keep=none")
    assert not (project.path / "other").exists()


def test_a_folder_that_cannot_be_written_is_said_once(project: pytest.Pytester) -> None:
    (project.path / "file").write_text("in the way")
    result = run(project, "--bpf-artifacts=file/kept")
    result.assert_outcomes(passed=1, failed=2)
    lines = [line for line in result.outlines if "artifacts cannot be written" in line]
    assert lines == [
        f"bpf: artifacts cannot be written to {project.path}/file/kept: Not a directory"
    ]


def test_packets_are_captured_for_who_asks(project: pytest.Pytester) -> None:
    result = run(project, "-k", "test_checksum", "--bpf-artifacts=kept", "--bpf-artifacts-capture")
    result.stdout.fnmatch_lines(
        [
            "last packets of left.veth0, of 5:",
            "    out: eth/ip/udp, 192.0.2.1:* > 192.0.2.2:*, 106 bytes",
            "last packets of right.veth0, of 5:",
            "    in: eth/ip/udp, * (udp.checksum is 0x*; that of this packet is 0x*)",
        ]
    )
    packets = project.path / "kept/test_failing.py-test_checksum/packets"
    names = {path.name for path in packets.iterdir()}
    assert names == {"left.veth0.pcapng", "right.veth0.pcapng"}
    assert (packets / "left.veth0.pcapng").read_bytes().startswith(b"\n\r\r\n")


def test_the_path_of_a_test_is_in_order(project: pytest.Pytester) -> None:
    project.makepyfile("""
        def test_path(bpf, bpf_netns_pair):
            left, right = bpf_netns_pair
            obj = bpf.load("failing.bpf.c", programs=["count"])
            obj.maps["seen"][0] = 7
            with obj.programs["count"].attach(right.iface):
                left.traffic.udp(to=right, count=3)
            for _ in range(20):
                obj.programs["count"].test_run(bytes(64))
    """)
    result = run(project, "-k", "test_path", "--bpf-trace", "-rA")
    result.stdout.fnmatch_lines(
        [
            "*ms  loader.load('failing.bpf.c', programs=?'count'?) -> <Object failing.bpf.c>",
            "*ms  seen?0? = 7",
            "*ms  count.attach(veth0 of right) -> <Link count -> veth0>",
            "*ms  left.udp(to=right, count=3) -> 3 of 3 arrived",
            "*ms      printk: count saw packet 1",
            "*ms      count ran 3 times*",
            "*ms      seen?0?: 7 -> 10",
            "*ms      total: 0 -> 3",
            "*ms  link of count.detach()",
            "*ms  count.test_run(64 bytes, all 0) -> XDP_PASS*",
            "*ms      seen?0?: 10 -> 11",
        ]
    )


def test_a_full_disk_ends_the_writing_and_nothing_else(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    report = pytest.TestReport("a.py::b", ("a.py", 1, "b"), {}, "failed", None, "call")
    report.bpf_artifacts = pack({"x": b"1", "y/../../../../dev/full": b"2"})  # type: ignore[attr-defined]
    folder.pytest_runtest_logreport(report)
    assert not hasattr(report, "bpf_artifacts")
    assert (tmp_path / "a.py-b/dev/full").read_bytes() == b"2"  # never outside of the folder


def test_two_tests_and_two_runs_of_one_have_folders_of_their_own(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for test in ("a/b.py::c", "a-b.py::c", "a-b.py::c"):
        folder.write(test, {"x": test.encode()})
    assert len(folders(tmp_path)) == 3


def test_a_crash_of_a_worker_leaves_what_was_reported(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    text = "worker '6.1' crashed while running 'a.py::b'\nKernel panic"
    report = pytest.TestReport("a.py::b", ("a.py", 1, "b"), {}, "failed", text, "???")  # type: ignore[arg-type]
    folder.pytest_runtest_logreport(report)
    assert "Kernel panic" in (tmp_path / "a.py-b/report.txt").read_text()


def test_what_is_kept_of_a_test_is_bounded() -> None:
    gathering = Gathering()
    gathering.add("long.txt", lambda: "a" * MOST_OF_FILE + "end")
    for number in range(5):
        gathering.add(f"{number}", lambda: bytes(MOST_OF_FILE))
    gathering.add("broken", lambda: str(int("x")))
    gathering.add("damaged", lambda: dict[str, str]().popitem()[0])
    files = gathering.done()
    assert files["long.txt"].endswith(b"end")
    assert sum(map(len, files.values())) < MOST_OF_TEST + 1000
    notes = files["notes.txt"].decode()
    assert f"long.txt: the last {MOST_OF_FILE} of {MOST_OF_FILE + 3} bytes" in notes
    assert "3: left out" in notes
    assert "broken: not there: invalid literal" in notes
    assert "damaged: not there: 'popitem(): dictionary is empty'" in notes
    assert unpack(pack(files)) == files


def test_folders_have_names_that_a_file_system_takes() -> None:
    names = {folder_name(f"a.py::test[{'x' * 300}{n}]") for n in range(3)}
    assert len(names) == 3
    assert all(len(name) <= 100 and "/" not in name for name in names)
    assert folder_name("a.py::test_b[6.1]") == "a.py-test_b[6.1]"


def test_a_test_that_fails_runs_again_with_its_path_recorded(project: pytest.Pytester) -> None:
    project.makepyfile("""
        from pathlib import Path
        import pytest

        made = []

        @pytest.fixture(scope="module")
        def place(bpf_module):
            made.append(1)
            assert len(made) > 1
            return 1

        def test_of_a_fixture_that_fails_once(place, bpf):
            bpf.load("failing.bpf.c", programs=["count"])

        def test_comes_and_goes(bpf):
            obj = bpf.load("failing.bpf.c", programs=["count"])
            made.append(2)
            assert made.count(2) > 1

        @pytest.mark.timeout(0.5, func_only=True)
        def test_comes_to_no_end(bpf):
            made.append(3)
            while True:
                pass

        def test_comes_without_bpf():
            made.append(4)
            assert 0

        def test_passes_after(bpf):
            assert made[:4] == [1, 1, 2, 2]
            assert made.count(3) <= 1
            assert made.count(4) == 1
    """)
    arguments = ("-k", "twice or again or full_map or of_a_fixture or comes or after")
    result = run(
        project, *arguments, "--bpf-rerun-traced", "--bpf-artifacts=kept",
        "--bpf-report=json:r.json", "-n1",
    )  # fmt: skip
    result.assert_outcomes(passed=1, failed=4, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*Path of the test (of a second run, which passed: the failure comes and goes)*",
            "*ms  loader.load('failing.bpf.c', programs=?'count'?)*",
            "*Path of the test (not run again: its time limit has passed*",
            "*Path of the test (of a second run, which failed alike)*",
            "*ms  by_port.test_run(eth/ip/udp, 10.0.0.1:4000 > 10.0.0.2:1, 64 bytes) -> XDP_PASS",
            "*ms      ports?256?: (new) -> 1",
        ]
    )
    kept = project.path / "kept/test_failing.py-test_full_map"
    assert "ports[256]: (new) -> 1" in (kept / "path.txt").read_text()
    outcomes = {o.test.partition("::")[2]: o for o in results.read(project.path / "r.json").tests}
    full = outcomes["test_full_map"]
    assert [step.kind for step in full.path[:3]] == ["load", "test_run", "map"]
    assert "kept/test_failing.py-test_full_map/path.txt" in full.artifacts
    assert all((project.path / name).is_file() for name in full.artifacts)
    assert not outcomes["test_passes_after"].path


class Nothing(Observer):
    """An observer of a test that loads nothing."""

    def __init__(self) -> None:
        super().__init__(tuple, tuple)


@pytest.mark.unit
def test_of_much_that_is_printed_in_a_step_the_path_has_the_end() -> None:
    path = PathOfTest(Nothing())
    start = path.before()
    path.add(start, "stimulus", "left.udp()")
    path.add(path.before(), "map", "seen[0] = 1")
    printed = [(start, f"line {n}") for n in range(100_000)]
    rows = [row.partition(" ms ")[2].strip() for row in path_lines(path.steps(printed))]
    assert rows[0] == "left.udp()"
    assert rows[1] == f"... {100_000 - MOST_PRINTED} lines of printk, then"
    assert rows[2] == f"printk: line {100_000 - MOST_PRINTED}"
    assert rows[MOST_PRINTED + 1 :] == ["printk: line 99999", "seen[0] = 1"]


@pytest.mark.unit
def test_of_many_steps_the_path_has_the_first() -> None:
    path = PathOfTest(Nothing())
    for number in range(MOST_STEPS + 7):
        path.add(path.before(), "map", f"seen[0] = {number}")
    rows = path_lines(path.steps())
    assert len(rows) == MOST_STEPS + 1
    assert rows[-1].endswith("... and 7 more steps")


def test_packets_for_which_there_was_no_room_are_said(bpf_netns_pair: Topology) -> None:
    left, right = bpf_netns_pair
    captures = Captures()
    with closing(captures):
        captures.add(right)
        count = 2 * MOST // 1000
        left.traffic.udp(to=right, count=count, size=1000)
        (passed,) = captures.last(1)
        assert (passed.where, len(passed.packets)) == ("right.veth0", 1)
        assert passed.count >= count
        (note,) = captures.notes
        assert re.match(rf"\d+ of {passed.count} packets of right.veth0 are not kept", note)
        ((name, make), (_, nothing)) = captures.files()
        assert name == "packets/right.veth0.pcapng"
        assert make().startswith(b"\n\r\r\n")
        assert nothing() == b""


UNREADABLE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
    __uint(map_flags, BPF_F_WRONLY);
} hidden SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} seen SEC(".maps");
int first = 1;
int total, v1, v2, v3, v4, v5, v6;

SEC("xdp") int count(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *n = bpf_map_lookup_elem(&seen, &key), *m = bpf_map_lookup_elem(&hidden, &key);
    if (n && m) *n += ++*m;
    total++;
    first = 2;
    return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def observer(bpf: Loader) -> Iterator[Observer]:
    """An observer of what a test loads."""
    with closing(Observer(lambda: [bpf], tuple)) as observer:
        yield observer


def unread(notes: Iterable[str]) -> list[str]:
    """What could not be read."""
    return [note.partition(" could not be read: ")[0] for note in notes if " be read: " in note]


def test_a_map_that_cannot_be_read_loses_no_other(bpf: Loader, observer: Observer) -> None:
    obj = bpf.load(UNREADABLE, name="unreadable")
    observer.changes()
    obj.programs["count"].test_run(bytes(64))
    texts = [text for _, text in observer.changes("test_run")]
    assert {"seen[0]: 0 -> 1", "total: 0 -> 1", "first: 1 -> 2"} <= set(texts)
    assert unread(observer.told().notes) == ["map 'hidden'"]


def test_variables_that_cannot_be_read_lose_no_others(bpf: Loader, observer: Observer) -> None:
    obj = bpf.load(UNREADABLE, name="unreadable")
    obj.maps[".data"].close()
    observer.changes()
    obj.programs["count"].test_run(bytes(64))
    assert ("map", "total: 0 -> 1") in observer.changes("test_run")
    variables = f"variables in .data of {obj.path.name}"
    assert unread(observer.told().notes) == ["map 'hidden'", variables]
    notes: list[str] = []
    evidence = collect(
        Failure(), [bpf], namespaces=(), drops=None, trace=None, since=0.0, notes=notes
    )
    rows = [(state.name, change.where) for state in evidence.maps for change in state.changes]
    assert {("seen", "[0]"), ("variables", "total")} <= set(rows)
    assert unread(evidence.notes) == ["map 'hidden'", variables]


def test_a_step_shows_what_it_changed_itself(bpf: Loader, observer: Observer) -> None:
    obj = bpf.load(UNREADABLE, name="unreadable")
    observer.changes()
    obj.globals.update({f"v{number}": 1 for number in range(1, 7)})
    assert observer.changes()[-1] == ("map", "... and more")
    assert observer.changes() == []
    obj.globals["v6"] = 0
    assert observer.changes() == [("map", "v6: 1 -> 0")]


def hide(path: Path) -> None:
    """Put a directory in the place of a file, for the calling thread alone."""
    libc.unshare(libc.CLONE_NEWNS)
    libc.make_mounts_private()
    libc.mount("tmpfs", path)


def test_counters_that_cannot_be_read_lose_no_others(bpf: Loader, bpf_netns_pair: Topology) -> None:
    left, right = bpf_netns_pair
    shoot = bpf.load(C, name="failing", programs=["shoot"]).programs["shoot"]
    shoot.attach(right.iface, direction="ingress", mode="clsact")
    right.run(hide, Path("/proc"))
    left.traffic.udp(to=right, count=3)
    with closing(Observer(tuple, lambda: [right])) as observer:
        dropped = "dropped in right: 3 packets by TC_ACT_SHOT (clsact of veth0)"
        assert observer.changes() == [("drops", dropped)]
        assert unread(observer.told().notes) == ["drops of protocols in 'right'"]
    evidence = collect(
        Failure(), [], namespaces=[right], drops=None, trace=None, since=0.0, notes=[]
    )
    assert [(drop.reason, drop.packets) for drop in evidence.drops] == [("TC_ACT_SHOT", 3)]
    assert unread(evidence.notes) == ["interfaces in 'right'", "drops of protocols in 'right'"]
