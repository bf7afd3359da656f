"""Kernel modules: the files of a kernel, what each needs, and their plain content."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

REQUIRED = ("virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay")
"""What a machine cannot do without."""

OPTIONAL = (
    *("veth", "dummy", "tun", "bridge", "ifb", "xfrm_user", "virtio_rng"),
    *("sch_netem", "sch_ingress", "sch_fq", "sch_tbf", "sch_prio", "sch_htb"),
    *("cls_bpf", "cls_u32", "cls_matchall", "cls_flower", "act_bpf", "act_mirred", "act_gact"),
    *("crc32c_generic", "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_conntrack", "nf_nat"),
    *("nf_tables", "nft_ct", "nft_nat", "nft_masq", "nft_chain_nat", "nft_flow_offload"),
    "nf_flow_table_inet",
    *("af_packet", "packet_diag", "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "netlink_diag"),
)
"""What tests of eBPF programs use; loaded from the start, as there may be no ``modprobe``."""

SUFFIX = re.compile(r"\.ko(\.xz|\.gz|\.zst)?$")


def name_of(path: Path | str) -> str:
    """Return the module's name: ``kernel/net/sched/sch-x.ko.xz`` is ``sch_x``."""
    return SUFFIX.sub("", str(path).rsplit("/", 1)[-1]).replace("-", "_")


def available(folder: Path) -> dict[str, Path]:
    """Return the modules below ``folder`` (``/lib/modules/RELEASE``) by name.

    The list is ``modules.order``'s where it stands, as in a build tree (which names ``.o`` files
    since Linux 6.3); else the files are found.
    """
    order = folder / "modules.order"
    lines = order.read_text().split() if order.exists() else []
    listed = [(folder / line).with_suffix(".ko") for line in lines]
    present = [path for path in listed if path.exists()]
    return {name_of(path): path for path in present or folder.rglob("*.ko*")}


def builtin(folder: Path) -> set[str]:
    """Return the names that ``modules.builtin`` says are part of the kernel itself."""
    listed = folder / "modules.builtin"
    return {name_of(line) for line in listed.read_text().split()} if listed.exists() else set()


def dependencies(content: bytes) -> list[str]:
    r"""Return what a module says it depends on (``depends=`` of its section ``.modinfo``).

    >>> dependencies(b"\0license=GPL\0depends=virtio,virtio-ring\0name=x\0")
    ['virtio', 'virtio_ring']
    """
    field = re.search(rb"\0depends=([^\0]*)\0", content)
    return [name_of(name) for name in field[1].decode().split(",") if name] if field else []


def read(path: Path) -> bytes:
    """Return a module's content, decompressed; raise `UnavailableError` when it cannot be."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        zstd = shutil.which("zstd")
        if not zstd:
            raise UnavailableError(f"{path.name} is compressed by zstd; install the command zstd")
        return subprocess.run([zstd, "-dcq", path], check=True, capture_output=True).stdout
    return path.read_bytes()


def closure(names: Iterable[str], modules: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the content of ``names`` and of all they need, in the order to load them in.

    Names that are not among ``modules`` are left out: they are part of the kernel, or missing.
    """
    loaded: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in loaded or name not in modules:
            return
        content = read(modules[name])
        for needed in dependencies(content):
            add(needed)
        loaded[name] = content

    for name in names:
        add(name)
    return loaded


def missing(folder: Path) -> list[str]:
    """Return those of `REQUIRED` that are neither modules below ``folder`` nor built in."""
    known = builtin(folder) | available(folder).keys()
    return [name for name in REQUIRED if name not in known]
