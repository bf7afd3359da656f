"""The kinds of program that kernels of containers and virtual machines often lack.

Where this kernel lacks one, its test is skipped with the reason; `test_vm_guest` runs them all on
Debian's kernel, in a machine, where none may be skipped.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import AttachError, UnavailableError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.sys.exact import is_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf import Measure, Object
    from pytest_bpf.loader import Loader

requires = pytest.mark.bpf_requires

JIT = Path("/proc/sys/net/core/bpf_jit_enable")


def statfs() -> object:
    return os.statvfs("/")


def getpriority() -> object:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.fixture
def load(bpf: Loader) -> Callable[..., Object]:
    """Load some of the programs; they count what this process does."""

    def load(*programs: str) -> Object:
        return bpf.load("kinds.bpf.c", programs=programs, globals={"only": os.getpid()})

    return load


def runs_once_a_call(obj: Object, act: Callable[[], object], *target: str) -> None:
    """Attach the only program, and see that it runs once for each call, and not when detached."""
    (program,) = obj.programs.values()
    link = program.attach(*target)
    for _ in range(3):
        act()
    assert obj.globals["hits"] == 3
    assert program.recursion_misses == 0
    link.detach()
    act()
    assert obj.globals["hits"] == 3


@pytest.mark.parametrize(
    ("program", "target"),
    [
        pytest.param("on_kprobe", (), marks=requires(attach="kprobe")),
        pytest.param("on_any_kprobe", ("vfs_statfs",), marks=requires(attach="kprobe")),
        pytest.param("on_kretprobe", (), marks=requires(attach="kretprobe")),
        pytest.param("on_any_kretprobe", ("vfs_statfs",), marks=requires(attach="kretprobe")),
        pytest.param("on_fentry", (), marks=requires(attach="fentry")),
        pytest.param("on_fexit", (), marks=requires(attach="fexit")),
    ],
)
def test_functions(load: Callable[..., Object], program: str, target: tuple[str, ...]) -> None:
    runs_once_a_call(load(program), statfs, *target)


@requires(attach="kprobe")
@pytest.mark.parametrize("program", ["on_ksyscall", "on_kretsyscall"])
def test_system_calls(load: Callable[..., Object], program: str) -> None:
    runs_once_a_call(load(program), getpriority)


@requires(attach="kprobe")
def test_a_kprobe_somewhere_else(load: Callable[..., Object]) -> None:
    obj = load("on_any_kprobe")
    with pytest.raises(AttachError, match="this kernel has no function 'no_such_function'"):
        obj.programs["on_any_kprobe"].attach("no_such_function")
    with pytest.raises(AttachError, match="its section does not say where"):
        obj.programs["on_any_kprobe"].attach()
    with pytest.raises(AttachError, match="this kernel has no function 'no_such_function'"):
        load("on_nothing").attach()


@requires(attach="kprobe")
def test_a_kprobe_behind_the_entry(load: Callable[..., Object]) -> None:
    program = load("on_any_kprobe").programs["on_any_kprobe"]
    with pytest.raises(AttachError, match=r"vfs_statfs: EILSEQ.*no instruction begins at that"):
        program.attach("vfs_statfs", offset=1)


@requires(attach="kprobe")
def test_everything_attaches_by_its_section(load: Callable[..., Object]) -> None:
    obj = load("on_kprobe", "on_kretprobe")
    obj.attach()
    statfs()
    assert obj.globals["hits"] == 2
    assert set(obj.links) == {"on_kprobe", "on_kretprobe"}


@requires(attach="kprobe")
def test_kprobe_multi(load: Callable[..., Object]) -> None:
    """Debian's 6.1 has kprobes and no fprobe: it is the kernel that lacks it, not the program."""
    if features.attach("kprobe_multi"):
        runs_once_a_call(load("on_kprobe_multi"), statfs)
    else:
        with pytest.raises(UnavailableError, match=r"kprobe.multi"):
            load("on_kprobe_multi").attach()


@requires(attach="fexit")
def test_fexit_sees_what_is_returned(load: Callable[..., Object]) -> None:
    obj = load("on_fexit")
    obj.globals["returned"] = -1
    with obj.programs["on_fexit"].attach():
        statfs()
    assert obj.globals["returned"] == 0


@requires(attach="fmod_ret")
def test_fmod_ret_changes_what_is_returned(load: Callable[..., Object]) -> None:
    obj = load("on_fmod_ret")
    with obj.programs["on_fmod_ret"].attach(), pytest.raises(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 5)
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    assert (obj.globals["hits"], obj.globals["argument"]) == (1, 5)


@requires(attach="lsm")
def test_an_lsm_program_forbids(load: Callable[..., Object]) -> None:
    obj = load("on_lsm")
    with obj.programs["on_lsm"].attach():
        with pytest.raises(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 7)
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    assert (obj.globals["hits"], obj.globals["argument"]) == (1, os.getpid())


@requires(attach="lsm")
def test_a_sleepable_lsm_program(load: Callable[..., Object]) -> None:
    runs_once_a_call(load("on_sleepable_lsm"), lambda: os.close(os.open("/dev/null", os.O_RDONLY)))


@requires(attach="kprobe")
def test_tail_calls_end_at_their_limit(load: Callable[..., Object]) -> None:
    obj = load("jumping", "jumping_on")
    obj.programs["jumping"].attach()
    statfs()
    assert obj.globals["returned"] == -1
    obj.maps["jumps"][1] = obj.programs["jumping_on"]
    statfs()
    assert obj.globals["returned"] == obj.globals["argument"] == 33
    assert obj.globals["hits"] == 1


@requires(attach="kprobe", helper="bpf_loop")
def test_bpf_loop(load: Callable[..., Object]) -> None:
    obj = load("looping")
    obj.attach()
    statfs()
    assert (obj.globals["returned"], obj.globals["argument"]) == (1000, sum(range(1000)))


@requires(helper="bpf_timer_start")
def test_a_timer(load: Callable[..., Object], wait_for: Callable[..., None]) -> None:
    obj = load("start_timer")
    assert obj.programs["start_timer"].test_run(bytes(64)).retval == 2
    wait_for(lambda: obj.globals["hits"] == 5)


@requires(attach="lsm", kfunc="bpf_lookup_system_key")
def test_a_kfunc(bpf: Loader) -> None:
    obj = bpf.load("kfunc.bpf.c", globals={"only": os.getpid()})
    program = obj.programs["asking_for_a_key"]
    with program.attach():
        assert program.info.id
        assert program.info.id
    assert obj.globals["found"] >= 2


@pytest.fixture
def jit() -> Iterator[Callable[[int], object]]:
    """Switch the kernel's compiler: only in a machine, where the setting is nobody else's."""
    if not is_machine():
        pytest.skip("the JIT is switched in a machine only: here it is the whole host's")
    before = JIT.read_text()
    yield lambda on: JIT.write_text(f"{on}\n")
    JIT.write_text(before)


def test_the_jit(
    load: Callable[..., Object], jit: Callable[[int], object], bpf_measure: Measure
) -> None:
    costs: dict[int, Any] = {}
    for on in (1, 0):
        jit(on)
        program = load("adding").programs["adding"]
        assert (program.prog_size_jited > 0) == bool(on)
        costs[on] = bpf_measure(
            program, partial(program.test_run, bytes(64), repeat=100), batches=9
        )
    compiled, interpreted = (costs[on].per_run for on in (1, 0))
    assert interpreted > 3 * compiled
