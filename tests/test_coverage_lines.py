"""Lines and branches of programs that ran, counted by hand."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from pytest_bpf.compile import CompileOptions, compile_source, find_compiler
from pytest_bpf.coverage.recorder import Recorder
from pytest_bpf.coverage.span import lines_of
from pytest_bpf.errors import BpfError, NotMeasuredError, UnknownNameError, VerifierError
from pytest_bpf.loader import Loader
from pytest_bpf.netns import Namespace
from tests.conftest import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.coverage.values import FileLines
    from pytest_bpf.objects import Object, Program

FIRST = HEADER.count("\n") + 1
"""The line where the text of a program starts."""


class Count(Protocol):
    """What the fixture ``count`` is."""

    recorder: Recorder

    def __call__(self, text: str, **options: object) -> Object: ...


class _Counting:
    def __init__(self, compiler: str) -> None:
        self.recorder = Recorder()
        self._compiler = compiler
        self.loaders = ExitStack()

    def __call__(self, text: str, **options: object) -> Object:
        chosen = CompileOptions(self._compiler)
        loader = Loader(compile_options=lambda _: chosen, lines=self.recorder)
        obj = self.loaders.enter_context(loader).load(HEADER + text, **options)  # type: ignore[arg-type]
        assert not self.recorder.notes
        return obj

    def file(self) -> FileLines:
        """Return what ran of the only source, once its objects are closed."""
        self.loaders.close()
        (file,) = self.recorder.files()
        return file


@pytest.fixture(params=["clang-14", "zig"])
def count(request: pytest.FixtureRequest) -> Iterator[_Counting]:
    try:
        find_compiler(request.param)
    except BpfError as error:
        pytest.skip(str(error))
    counting = _Counting(request.param)
    with counting.loaders:
        yield counting


def _lines(file: FileLines) -> dict[int, int]:
    return {line - FIRST + 1: n for line, n in file.lines.items()}


LOOP = """\
static int square(int n)
{
	return n * n;
}
static __noinline int sum(struct __sk_buff *skb)
{
	int i, total = skb->len;
	for (i = 0; i < 7; i++) {
		if (i == 3)
			continue;
		total += square(i);
	}
	return total;
}
SEC("socket")
int program(struct __sk_buff *skb)
{
	switch (sum(skb)) {
	case 1:
		return 1;
	case 100:
		return 2;
	}
	return skb->len > 10 && skb->len < 20;
}
"""


def test_a_loop_a_switch_and_functions(count: _Counting) -> None:
    obj = count(LOOP)
    program = obj.programs["program"]
    run = program.test_run(bytes(64))
    assert {n: run.lines[n + FIRST - 1] for n in (3, 8, 9, 10, 11, 13, 18, 20, 24)} == {
        3: 6,
        8: 8,
        9: 7,
        10: 1,
        11: 6,
        13: 1,
        18: 1,
        20: 0,
        24: 1,
    }
    assert {(b.line - FIRST + 1, b.text, b.true, b.false) for b in run.branches} >= {
        (8, "i < 7", 7, 1),
        (9, "i == 3", 1, 6),
        (19, "case 1", 0, 1),
    }
    with pytest.raises(UnknownNameError, match=rf":{FIRST + 27} has no code that could run"):
        run.lines[FIRST + 27]
    program.test_run(bytes(64))
    file = count.file()
    assert {3: 12, 8: 16, 20: 0}.items() <= _lines(file).items()
    assert {(f.name, f.count) for f in file.functions} == {
        ("square", 12),
        ("sum", 2),
        ("program", 2),
    }


CALLBACK = """\
static long step(__u64 index, void *context)
{
	int *total = context;
	*total += index;
	if (index == 9)
		return 1;
	return 0;
}
__attribute__((noinline)) int global(int n)
{
	if (n > 40)
		return 1;
	return 2;
}
SEC("socket")
int program(struct __sk_buff *skb)
{
	int total = 0;
	bpf_loop(20, step, &total, 0);
	return global(total);
}
"""


def test_a_callback_and_a_global_function(count: _Counting) -> None:
    run = count(CALLBACK).programs["program"].test_run(bytes(64))
    assert run.retval == 1
    assert {n: run.lines[n + FIRST - 1] for n in (3, 6, 7, 11, 12, 13)} == {
        3: 10,
        6: 1,
        7: 9,
        11: 1,
        12: 1,
        13: 0,
    }


TAIL = """\
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} jump SEC(".maps");
SEC("socket/next")
int next(struct __sk_buff *skb)
{
	return 7;
}
SEC("socket")
int program(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jump, 0);
	return 1;
}
"""


def test_a_tail_call(count: _Counting) -> None:
    obj = count(TAIL, types={"next": "socket_filter"})
    program = obj.programs["program"]
    assert program.test_run(bytes(64)).lines[10 + FIRST - 1] == 0
    obj.maps["jump"][0] = obj.programs["next"]
    run = program.test_run(bytes(64))
    assert run.retval == 7
    assert run.lines[10 + FIRST - 1] == run.lines[15 + FIRST - 1] == 1


CPUS = """\
SEC("raw_tp")
int program(void *context)
{
	int i, total = 0;
	for (i = 0; i < 100; i++)
		total += bpf_get_smp_processor_id() & 1;
	return total;
}
"""


def _on_two_cpus(program: Program) -> None:
    """Run a program 2,000 times on two CPUs each, at once."""

    def run(cpu: int) -> None:
        program.test_run(cpu=cpu, repeat=2000)

    threads = [threading.Thread(target=run, args=(cpu,)) for cpu in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_several_cpus_at_once_lose_no_count(count: _Counting) -> None:
    _on_two_cpus(count(CPUS, types={"program": "raw_tracepoint"}).programs["program"])
    lines = _lines(count.file())
    assert (lines[4], lines[6]) == (4000, 400_000)


CONGESTION = """\
SEC("struct_ops/init") void BPF_PROG(init, struct sock *sk)
{
}
SEC("struct_ops/ssthresh") __u32 BPF_PROG(ssthresh, struct sock *sk)
{
	return 10;
}
SEC("struct_ops/avoid") void BPF_PROG(avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}
SEC("struct_ops/undo") __u32 BPF_PROG(undo, struct sock *sk)
{
	return 10;
}
SEC(".struct_ops") struct tcp_congestion_ops mine = {
	.init = (void *)init, .ssthresh = (void *)ssthresh, .cong_avoid = (void *)avoid,
	.undo_cwnd = (void *)undo, .name = "bpf_lines_cc" };
"""


@pytest.mark.bpf_requires(attach="struct_ops")
def test_struct_ops(count: _Counting) -> None:
    obj = count(CONGESTION)
    with Namespace() as namespace, namespace.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        obj.attach("mine")
        for _ in range(3):
            with namespace.socket() as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bpf_lines_cc")
                client.connect(server.getsockname())
        obj.links["mine"].detach()
    calls = {f.name.strip("_"): f.count for f in count.file().functions}
    assert calls["init"] == 3
    assert calls["undo"] == 0


SLEEPABLE = """struct arguments { __u32 from, size; char text[8]; };
SEC("syscall")
int program(struct arguments *arguments)
{
	char text[4] = {};
	if (bpf_copy_from_user(text, sizeof(text), (void *)1))
		return 1;
	return 2;
}
"""


@pytest.mark.bpf_requires(program_type="syscall")
def test_a_program_that_may_sleep(count: _Counting, tmp_path: Path) -> None:
    context = bytes(16)
    run = count(SLEEPABLE).programs["program"].test_run(context=context)
    assert (run.retval, run.lines[7 + FIRST - 1], run.lines[8 + FIRST - 1]) == (1, 1, 0)
    recorder = Recorder()
    with Loader(lines=recorder) as loader:
        program = loader.load(_object(tmp_path, SLEEPABLE)).programs["program"]
        assert program.test_run(context=context).retval == 1
    (file,) = recorder.files()
    assert _lines(file)[6] == 1


def test_instructions_are_counted_on_several_cpus(tmp_path: Path) -> None:
    recorder = Recorder()
    with Loader(lines=recorder) as loader:
        program = loader.load(
            _object(tmp_path, CPUS), types={"program": "raw_tracepoint"}
        ).programs["program"]
        _on_two_cpus(program)
    (file,) = recorder.files()
    assert max(_lines(file).values()) >= 400_000


CONSTANT = """\
const volatile int wanted = 0;
SEC("socket")
int program(struct __sk_buff *skb)
{
	if (wanted) {
		bpf_printk("%d", skb->len);
		return 3;
	}
	if (skb->len > 1000)
		return 2;
	return 1;
}
"""


def test_what_the_verifier_removed_is_dead_and_not_only_not_run(count: _Counting) -> None:
    count(CONSTANT).programs["program"].test_run(bytes(64))
    file = count.file()
    assert {line - FIRST + 1 for line in file.dead} >= {6}
    assert {10, 11}.isdisjoint(line - FIRST + 1 for line in file.dead)
    assert _lines(file)[10] == 0


def test_a_line_is_not_dead_when_one_load_keeps_it(count: _Counting) -> None:
    for wanted in (0, 1):
        count(CONSTANT, globals={"wanted": wanted})
    assert not count.file().dead


BIG_STACK = """\
SEC("socket")
int program(struct __sk_buff *skb)
{
	return *(volatile int *)0;
}
"""


def test_what_the_kernel_refuses_is_refused_as_it_ships(count: _Counting) -> None:
    with pytest.raises(VerifierError):
        count(BIG_STACK)
    assert not count.recorder.notes


LONG = """\
SEC("socket")
int program(struct __sk_buff *skb)
{
	int i, total = 0;
	for (i = 0; i < 100000; i++)
		total ^= *(volatile __u32 *)&skb->len >> (i & 7);
	return total & 1;
}
"""
"""800,000 instructions for the verifier, and more than its million with counters."""


def test_what_is_refused_only_with_counters_runs_as_it_ships() -> None:
    recorder = Recorder()
    with Loader(compile_options=lambda _: CompileOptions("zig"), lines=recorder) as loader:
        obj = loader.load(HEADER + LONG, name="long")
        assert obj.programs["program"].verified_insns < 1_000_000
        assert obj.recording is None
        with pytest.raises(NotMeasuredError):
            obj.programs["program"].test_run(bytes(64)).lines  # noqa: B018
    (note,) = recorder.notes
    assert re.search(r"its lines are not counted: .*program is too .*program is too", note)


def test_a_run_that_was_not_counted_says_how_to_count() -> None:
    with Loader() as loader:
        run = loader.load(HEADER + LOOP).programs["program"].test_run(bytes(64))
        with pytest.raises(NotMeasuredError, match="fixture bpf_lines, or run pytest with --bpf-c"):
            run.lines  # noqa: B018
        with pytest.raises(NotMeasuredError):
            run.branches  # noqa: B018


def test_several_sources_are_counted_by_their_instructions(tmp_path: Path) -> None:
    for name in "ab":
        includes, _, rest = HEADER.rpartition("char LICENSE")
        text = HEADER if name == "a" else includes
        assert rest
        (tmp_path / f"{name}.bpf.c").write_text(
            text + f'SEC("socket")\nint {name}(void *c)\n{{\n\treturn 1;\n}}\n'
        )
    recorder = Recorder()
    with Loader(tmp_path, lines=recorder) as loader:
        loader.load(["a.bpf.c", "b.bpf.c"]).programs["b"].test_run(bytes(64))
    assert any("approximately: several sources are linked into one" in n for n in recorder.notes)
    assert {Path(file.path).name for file in recorder.files()} == {"a.bpf.c", "b.bpf.c"}


def _object(folder: Path, text: str, *flags: str) -> Path:
    """Return an object that was compiled elsewhere, its source beside it."""
    source = folder / "other.bpf.c"
    source.write_text(HEADER + text)
    compiled = compile_source(source, compiler="zig", flags=flags)
    return Path(shutil.copy(compiled.object, folder / "other.bpf.o"))


def test_an_object_is_counted_by_its_instructions(tmp_path: Path) -> None:
    recorder = Recorder()
    with Loader(lines=recorder) as loader:
        program = loader.load(_object(tmp_path, LOOP)).programs["program"]
        run = program.test_run(bytes(64))
        assert run.retval == 0
        assert run.lines["other.bpf.c", 18 + FIRST - 1] == 1
        program.test_run(bytes(64))
    (file,) = recorder.files()
    assert file.approximate
    assert _lines(file)[18] == 2
    assert not file.branches
    (note,) = recorder.notes
    assert "its lines are counted by instructions, approximately: it was not compiled here" in note


def test_a_source_that_is_newer_than_its_object_is_said(tmp_path: Path) -> None:
    made = _object(tmp_path, LOOP)
    os.utime(tmp_path / "other.bpf.c", (2e9, 2e9))
    recorder = Recorder()
    with Loader(lines=recorder) as loader:
        loader.load(made)
    assert any("other.bpf.c is newer than" in note for note in recorder.notes)


def test_an_attached_object_is_counted_by_its_instructions(tmp_path: Path) -> None:
    text = """SEC("tp/syscalls/sys_enter_getpid")
int program(void *context)
{
	return 0;
}
"""
    recorder = Recorder()
    with Loader(lines=recorder) as loader:
        obj = loader.load(_object(tmp_path, text))
        obj.attach()
        lines = lines_of(obj, lambda: [os.getpid() for _ in range(5)])
        assert lines["other.bpf.c", 4 + FIRST - 1] >= 5


def test_an_object_without_lines_is_not_counted(tmp_path: Path) -> None:
    recorder = Recorder()
    with Loader(lines=recorder) as loader:
        obj = loader.load(_object(tmp_path, LOOP, "-g0"))
        with pytest.raises(NotMeasuredError, match=r"the lines of other.bpf.o are not counted"):
            lines_of(obj)
    (note,) = recorder.notes
    assert "program 'program' has no line information: compile it with -g" in note
