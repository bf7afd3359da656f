"""Stack traces: addresses, and the functions they are in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import MapError
from pytest_bpf.objects.maps.stacks import StackTrace

if TYPE_CHECKING:
    from tests.conftest import Load

SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(max_entries, 64); __type(key, __u32);
  __uint(value_size, 8 * 100); } stacks SEC(".maps");
long kernel = -1, user = -1; __u32 pid;
SEC("raw_tp/sys_enter") int enter(void *ctx) {
  if ((__u32)(bpf_get_current_pid_tgid() >> 32) != pid || user >= 0) return 0;
  kernel = bpf_get_stackid(ctx, &stacks, 0);
  user = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
  return 0;
}
"""


def test_a_stack_is_named_by_the_kernel_and_by_the_binaries(load: Load) -> None:
    obj = load(SOURCE, globals={"pid": os.getpid()})
    with obj.programs["enter"].attach():
        os.getppid()
    stacks = obj.maps["stacks"]
    kernel, user = stacks[obj.globals["kernel"]], stacks[obj.globals["user"]]
    assert 0 not in kernel
    assert 1 < len(kernel) < 100
    names = [frame.function for frame in kernel.frames()]
    assert any("syscall" in name for name in names), names
    frames = user.frames(os.getpid())
    assert len(frames) == len(user)
    assert any("libc" in frame.file and frame.function for frame in frames[:2]), frames
    assert all(frame.address == address for frame, address in zip(frames, user, strict=True))
    assert dict(stacks.items())[obj.globals["kernel"]] == kernel
    assert kernel in stacks.values()
    assert "+0x" in str(kernel.frames()[1])
    with pytest.raises(MapError, match=r"addresses of user space: frames\(pid=...\)"):
        user.frames()


def test_an_address_in_nothing_has_no_function() -> None:
    (frame,) = StackTrace((0x10,)).frames(os.getpid())
    assert (frame.function, frame.file, str(frame)) == ("", "", "0x10")
    with pytest.raises(MapError, match="process 4194305 cannot be looked up"):
        StackTrace((0x10,)).frames(4194305)
