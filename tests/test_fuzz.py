"""Invariants over inputs, the folder of inputs that is kept, and the dearest input."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import (
    InvariantError,
    RunError,
    ValueTypeError,
    check_invariants,
    find_worst,
)
from pytest_bpf.commands import regression
from pytest_bpf.fuzz.processes import workers
from pytest_bpf.kernel.sys import names
from pytest_bpf.kernel.values.actions import XdpAction
from tests.conftest import HEADER

if TYPE_CHECKING:
    from pytest_bpf import Loader, Object, Trial
    from pytest_bpf.plugin.fuzzing import CheckInvariants, FindWorst
    from tests.conftest import Load

PARSER = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
    __type(key, __u32); __type(value, __u64); } packets SEC(".maps");
SEC("xdp") int parse(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u8 *at = data + 14, *type = data + 12;
    __u32 key = 0; __u64 *count = bpf_map_lookup_elem(&packets, &key);
    if (count) *count += COUNT;
    if (data + 14 > end || type[0] != 0x88 || type[1] != 0xb5) return XDP_PASS;
    for (int i = 0; i < 20; i++) {          /* type, length, value */
        if ((void *)at + 2 > end) return XDP_DROP;
        if (at[0] == 0) return XDP_PASS;
        if (at[0] == 0x7e && at[1] == 99) return XDP_ABORTED;
        if (at[1] < 2) return XDP_DROP;
        at += at[1];
    }
    return XDP_TX;
}
"""
RIGHT = PARSER.replace("COUNT", "1")


def never_aborts(trial: Trial) -> None:
    assert trial.retval != XdpAction.XDP_ABORTED, f"aborts for {len(trial.data)} bytes"


def counts(obj: Object, runs: int) -> None:
    assert obj.maps["packets"][0] == runs, f"{obj.maps['packets'][0]} counted of {runs}"


def failure(load: Load, text: str = RIGHT, **options: object) -> str:
    with pytest.raises(InvariantError) as caught:
        check_invariants(load(text), **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_an_input_that_breaks_an_invariant_is_found_and_small(load: Load) -> None:
    text = failure(load, invariant=never_aborts)
    assert text.startswith("program 'parse': never_aborts: aborts for 16 bytes")
    assert "packet, 16 bytes: 00000000000000000000000088b57e63" in text
    assert "return XDP_ABORTED" in text
    assert "returns XDP_ABORTED" in text


def test_what_holds_is_told_with_what_was_reached(load: Load) -> None:
    result = check_invariants(load(RIGHT), after=counts, count=3000)
    assert result.inputs == 3000
    assert result.reach.lines == result.reach.all_lines
    assert str(result).startswith("3000 inputs (seed 0")


def test_the_state_is_asked_after_each_batch(load: Load) -> None:
    assert "counts: 0 counted of 1" in failure(load, PARSER.replace("COUNT", "0"), after=counts)


def test_an_invariant_that_raises_is_an_answer(load: Load) -> None:
    def broken(trial: Trial) -> None:
        raise KeyError(trial.retval.name)  # type: ignore[attr-defined]

    text = failure(load, invariant=broken)
    assert text.startswith("program 'parse': broken raises KeyError: 'XDP_PASS'")


def test_an_invariant_may_return_false(load: Load) -> None:
    def short(trial: Trial) -> bool:
        return trial.packet.eth.type != 0x88B5

    assert failure(load, invariant=short).startswith("program 'parse': short returns False")


def test_a_folder_keeps_what_reaches_something_and_what_failed(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    obj = load(RIGHT)
    result = check_invariants(obj, corpus=folder, count=4000)
    kept = sorted(folder.glob("parse-*.bin"))
    assert len(kept) == result.corpus < 30
    again = check_invariants(obj, corpus=folder, count=200, seed=9)
    assert again.reach.blocks == result.reach.blocks
    text = failure(load, invariant=never_aborts, corpus=folder)
    (crash,) = folder.glob("*.failure.json")
    assert f"kept in {crash}, which is tried first from now on" in text
    kept = json.loads(crash.read_text())
    assert kept == {"program": "parse", "inputs": ["00000000000000000000000088b57e63"]}
    crash.write_text(json.dumps(kept["inputs"]))  # as it was kept at first
    with pytest.raises(InvariantError, match="found by known from"):
        check_invariants(obj, never_aborts, corpus=folder, count=1)


def test_a_folder_of_damaged_files_is_taken_or_said(load: Load, tmp_path: Path) -> None:
    (tmp_path / "parse-1.bin").write_bytes(b"")
    (tmp_path / "parse-2.bin").write_bytes(bytes(100_000))
    (tmp_path / "other-3.bin").write_bytes(b"of another program")
    assert check_invariants(load(RIGHT), corpus=tmp_path, count=300)
    assert (tmp_path / "other-3.bin").exists()
    (tmp_path / "parse-4.failure.json").write_text("[")
    with pytest.raises(ValueTypeError, match=r"parse-4.failure.json is damaged .*; remove it"):
        check_invariants(load(RIGHT), corpus=tmp_path)
    with pytest.raises(ValueTypeError, match="is no folder"):
        check_invariants(load(RIGHT), corpus=tmp_path / "other-3.bin")


@pytest.mark.parametrize("name", ["parse-1.bin", "parse-1.failure.json"])
@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_what_is_no_file_in_a_folder_of_inputs_is_said(
    load: Load, tmp_path: Path, name: str, what: str
) -> None:
    path = tmp_path / name
    make = {"folder": path.mkdir, "link": lambda: path.symlink_to("gone")}
    make.get(what, lambda: os.mkfifo(path))()
    with pytest.raises(ValueTypeError, match=rf"corpus: .*/{name} is no file with .*; remove it"):
        check_invariants(load(RIGHT), corpus=tmp_path, count=10)


def test_functions_and_seeds_that_are_none_are_said(load: Load) -> None:
    obj: Any = load(RIGHT)
    with pytest.raises(ValueTypeError, match="invariant is 5; it is a function that is called"):
        check_invariants(obj, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueTypeError, match="after is 'x'; it is a function that is called"):
        check_invariants(obj, after="x")  # type: ignore[arg-type]
    for ask in (check_invariants, find_worst):
        with pytest.raises(ValueTypeError, match="seed is '1'; it is a number"):
            ask(obj, seed="1")  # type: ignore[arg-type]


def test_programs_are_chosen_by_name(load: Load) -> None:
    obj = load(RIGHT + 'SEC("tc") int other(struct __sk_buff *skb) { return 0; }')
    with pytest.raises(RunError, match="say by program= which: parse, other"):
        check_invariants(obj)
    assert check_invariants(obj, program="other", count=300).reach.all_blocks == 1


def test_the_dearest_input_goes_round_most_often(load: Load) -> None:
    obj = load(RIGHT)
    worst = find_worst(obj)
    usual = find_worst(obj, count=1)
    assert worst.insns > 5 * usual.insns
    assert worst.way[-1] == "returns XDP_TX"
    assert obj.programs["parse"].test_run(worst.data).retval == XdpAction.XDP_TX
    assert obj.maps["packets"][0] == 1  # the state was put back: this is the run of the line above
    assert find_worst(obj) == worst


BUILDS_UP = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64);
    __type(key, __u8); __type(value, __u64); } flows SEC(".maps");
__u64 known, sum;
SEC("xdp") int track(struct xdp_md *ctx) {
    __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u64 one = 1;
    if (data + 16 > end) return XDP_DROP;
    if (data[14] == 0x42) {                     /* a new flow, by its key */
        if (!bpf_map_update_elem(&flows, data + 15, &one, BPF_NOEXIST)) known++;
        return XDP_PASS;
    }
    if (data[14] != 0x43) return XDP_PASS;
    for (int i = 0; i < 64 && i < known; i++) { /* all flows are looked at */
        __u8 key = i;
        __u64 *flow = bpf_map_lookup_elem(&flows, &key);
        sum += flow ? *flow : 3;
    }
    return XDP_TX;
}
"""


def test_costs_build_up_over_inputs(bpf: Loader, bpf_worst: FindWorst) -> None:
    """New flows, each with another key, and then the packet that looks at all of them."""
    obj = bpf.load(HEADER + BUILDS_UP)
    single = find_worst(obj, program="track")
    worst = bpf_worst(obj, program="track", earlier=20)
    assert single.earlier == ()
    assert len(worst.earlier) == 20
    assert len({data[15] for data in worst.earlier}) == 20
    assert {data[14] for data in worst.earlier} == {0x42}
    assert worst.data[14] == 0x43
    assert worst.way[-1] == "returns XDP_TX"
    assert worst.insns > single.insns + 20 * 8
    assert "instructions behind 20 other inputs, for\ninput 1 of 21:\n  packet" in str(worst)
    assert "... 13 inputs more\ninput 18 of 21:" in worst.text
    assert "input 21 of 21:" in worst.text
    assert find_worst(obj, earlier=20) == worst
    assert find_worst(obj, earlier=3).insns < worst.insns
    assert not obj.maps["flows"]  # the state was put back


COUNTED = """
__u64 runs;
SEC("xdp") int count(struct xdp_md *ctx) {
    __u64 sum = 0;
    runs++;
    for (int i = 0; i < 50 && i < runs; i++) sum += bpf_get_prandom_u32() & 1;
    return sum > 100;
}
"""


def test_an_input_that_is_dearer_when_it_comes_again_is_said(load: Load) -> None:
    single, sequence = (find_worst(load(COUNTED), earlier=n, count=300) for n in (0, 30))
    assert single.rise > 20
    assert "BPF instructions more when it comes again: costs build up in what" in str(single)
    assert "inputs 1 to 31 of 31:" in sequence.text or "inputs 1 to 30 of 31:" in sequence.text
    assert sequence.insns > single.insns + 3 * single.rise
    assert "comes again" not in str(sequence)
    assert find_worst(load(RIGHT), count=300).rise == 0
    with pytest.raises(ValueTypeError, match="earlier is -1; it is how many inputs may come"):
        find_worst(load(RIGHT), earlier=-1)


def test_processes_share_the_work(bpf_fuzz: CheckInvariants, tmp_path: Path) -> None:
    text = HEADER + RIGHT
    result = bpf_fuzz(text, processes=3, count=3000, corpus=tmp_path)
    assert result.inputs == 3000
    assert result.reach.lines == result.reach.all_lines
    assert len(list(tmp_path.glob("parse-*.bin"))) == result.corpus
    with pytest.raises(InvariantError, match=r"found by seed \d") as caught:
        bpf_fuzz(text, never_aborts, processes=2)
    assert "packet, 16 bytes: 00000000000000000000000088b57e63" in str(caught.value)


@pytest.mark.parametrize("processes", [0, 1.5, 1000])
def test_processes_are_a_number(bpf_fuzz: CheckInvariants, load: Load, processes: Any) -> None:
    with pytest.raises(ValueTypeError, match="it is a number from 1 to 256"):
        bpf_fuzz(HEADER + RIGHT, processes=processes)
    with pytest.raises(ValueTypeError, match="each process loads the program for itself"):
        bpf_fuzz(load(RIGHT), processes=2)


def test_what_a_process_raises_is_said() -> None:
    def fails() -> int:
        raise ZeroDivisionError("by 0")

    def waits() -> int:
        signal.pause()
        return 0

    with workers([lambda: 7, lambda: 8]) as team:
        assert team.results() == [7, 8]
    with (
        workers([fails, waits]) as team,
        pytest.raises(RunError, match="process 2 failed: ZeroDivisionError: by 0"),
    ):
        team.results()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # the one that waits has ended, too


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_process_made_goes_with_it(tmp_path: Path, *, fails: bool) -> None:
    """And nothing of what its parent has made."""
    ours = names.claim(tmp_path / "ours", Path.unlink)
    theirs = tmp_path / "theirs"
    ours.touch()

    def make() -> bool:
        names.claim(theirs, Path.unlink).touch()
        if fails:
            raise ZeroDivisionError
        return theirs.exists()

    with workers([make]) as team, suppress(RunError):
        assert team.results() == [True]
    assert not theirs.exists()
    assert ours.exists()
    names.release(ours)


FUZZ = """
import pytest
from pytest_bpf import XdpAction

def never_aborts(trial):
    assert trial.retval != XdpAction.XDP_ABORTED

def test_parse(bpf_fuzz):
    bpf_fuzz("parse.bpf.c", never_aborts, corpus="corpus")
"""


def test_a_failure_becomes_a_test(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    (pytester.path / "parse.bpf.c").write_text(HEADER + RIGHT)
    pytester.makepyfile(test_parse=FUZZ)
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*a test of it is written by: pytest-bpf regression /*"])
    (crash,) = pytester.path.glob("corpus/*.failure.json")
    for _ in range(2):  # a second time adds nothing
        assert regression.main([str(crash)]) == 0
        assert "test_regressions.py: 1 tests" in capsys.readouterr().out
    pytester.runpytest_subprocess("test_regressions.py").assert_outcomes(failed=1)
    (pytester.path / "parse.bpf.c").write_text(HEADER + RIGHT.replace("ABORTED", "DROP"))
    pytester.runpytest_subprocess("test_regressions.py").assert_outcomes(passed=1)
    crash.write_text(crash.read_text().replace("never_aborts", "<lambda>"))
    assert regression.main([str(crash), "--output", "other.py"]) == 2
    assert "<lambda> is no function of a module" in capsys.readouterr().err


def test_an_object_without_programs_is_said(load: Load) -> None:
    with pytest.raises(RunError, match=r" has no program$"):
        check_invariants(load("int counted;"))
