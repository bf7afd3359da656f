"""BCC sources on a kernel with kprobes, whose headers the host has downloaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.kernel.sys.exact import is_exact
from pytest_bpf.kernels import debian

if TYPE_CHECKING:
    from pytest_bpf import Loader, Object

TEXT = """
BPF_HASH(calls, u32, u64, 16);

static int count(u32 slot)
{
    u64 zero = 0, *calls_so_far;

    if (bpf_get_current_pid_tgid() >> 32 != ONLY)
        return 0;
    calls_so_far = calls.lookup_or_try_init(&slot, &zero);
    if (calls_so_far)
        ++*calls_so_far;
    return 0;
}

int kprobe__vfs_statfs(struct pt_regs *ctx) { return count(1); }
int kretprobe__vfs_statfs(struct pt_regs *ctx) { return count(2); }
int anywhere(struct pt_regs *ctx) { return count(3); }
"""

pytestmark = [
    pytest.mark.bpf_requires(attach=["kprobe", "kretprobe"]),
    pytest.mark.skipif(
        not debian.unpacked_headers(os.uname().release), reason="no headers of this kernel"
    ),
    pytest.mark.skipif(is_exact(), reason="compiling takes minutes where time is counted"),
]


@pytest.fixture(scope="module")
def obj(bpf_module: Loader) -> Object:
    return bpf_module.load_bcc(TEXT, defines={"ONLY": os.getpid()})


def test_probes_attach_by_their_names_and_by_their_targets(obj: Object) -> None:
    obj.attach()
    for _ in range(3):
        os.statvfs("/")
    calls = obj.maps["calls"]
    assert dict(calls.items()) == {1: 3, 2: 3}
    with obj.programs["anywhere"].attach("vfs_statfs"):
        os.statvfs("/")
    os.statvfs("/")
    assert calls[3] == 1
    assert calls[1] == 5
