"""What programs return, and updates that fail: the path of a test where the kernel has fexit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf import XdpAction
from pytest_bpf.objects.programs.exits import FailedUpdates, Verdicts
from pytest_bpf.plugin.artifacts.observing import Observer

if TYPE_CHECKING:
    from pytest_bpf import Loader, Namespace

SOURCE = Path(__file__).with_name("exits.bpf.c")


def test_verdicts_and_failed_updates_are_counted(bpf: Loader) -> None:
    obj = bpf.load(SOURCE)
    program, sizes = obj.programs["by_size"], obj.maps["sizes"]
    verdicts, failed = Verdicts(program), FailedUpdates()
    try:
        failed.watch(obj.maps.values())
        assert not failed.why_not
        for size in range(95, 105):
            program.test_run(bytes(size))
        assert verdicts.read() == {XdpAction.XDP_PASS: 6, XdpAction.XDP_DROP: 4}
        assert failed.read()[sizes.id] == {"E2BIG": 6}
    finally:
        verdicts.close()
        failed.close()


def test_the_path_of_a_test_has_them(
    bpf: Loader, bpf_netns_pair: tuple[Namespace, Namespace]
) -> None:
    left, right = bpf_netns_pair
    program = bpf.load(SOURCE).programs["by_size"]
    observer = Observer(lambda: [bpf], lambda: bpf_netns_pair)
    try:
        observer.changes("load")
        program.attach(right.iface)
        for size in range(60, 66):
            program.test_run(bytes(size))
        left.traffic.udp(to=right, count=3, size=300)
        texts = [text for _, text in observer.changes()]
        assert "by_size ran 9 times: XDP_PASS 6, XDP_DROP 3" in texts
        assert "sizes: an update failed 5 times with E2BIG" in texts
        assert observer.attached() == ["by_size from veth0"]
        assert observer.told().notes == ()
    finally:
        observer.close()
