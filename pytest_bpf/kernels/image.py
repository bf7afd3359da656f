"""Kernel images: what one is, and the plain ELF file that boots without decompressing itself."""

from __future__ import annotations

import gzip
import lzma
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    from pathlib import Path

ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
"""``e_machine`` of <elf.h> to the name ``uname -m`` gives."""

BANNER = re.compile(rb"Linux version (\d+\.\d+[^\s\0%]*) ")

HEAD = 1 << 20
"""Bytes of an image that tell what it is."""


@dataclass(frozen=True)
class Image:
    """What an image says of itself: the ``release`` (``uname -r``; empty when it does not say)."""

    architecture: str
    release: str


def identify(path: Path) -> Image:
    """Read what kind of kernel ``path`` is.

    Knows bzImage (Linux's Documentation/arch/x86/boot.rst), arm64's Image, plain or compressed by
    gzip, and ELF. Raises `BpfError` when it is none of these, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise BpfError(f"cannot read the kernel image {path}: {error.strerror}") from None
    if head[0x202:0x206] == b"HdrS":
        return Image("x86_64", _bzimage_release(head))
    if head[:2] == b"\x1f\x8b":
        content = gzip.decompress(path.read_bytes())
        if content[56:60] == b"ARM\x64":
            return Image("aarch64", _banner(content))
    if head[56:60] == b"ARM\x64":
        return Image("aarch64", _banner(path.read_bytes()))
    if head[:4] == b"\x7fELF":
        (machine,) = struct.unpack_from("<H", head, 18)
        return Image(
            ELF_MACHINES.get(machine, f"ELF machine {machine}"), _banner(path.read_bytes())
        )
    raise BpfError(f"{path} is not a kernel image: neither bzImage, nor arm64 Image, nor ELF")


def extract(path: Path) -> bytes | None:
    """Return the ELF file inside a bzImage, or None when it must boot as it is.

    Entered directly (PVH), it saves the guest from decompressing itself, which takes seconds
    without KVM.
    """
    content = path.read_bytes()
    if content[0x202:0x206] != b"HdrS":
        return None
    sectors = content[0x1F1] or 4
    (version,) = struct.unpack_from("<H", content, 0x206)
    if version < 0x0208:
        return None
    offset, length = struct.unpack_from("<II", content, 0x248)
    start = (sectors + 1) * 512 + offset
    kernel = _decompress(content[start : start + length])
    if kernel is None or kernel[:4] != b"\x7fELF" or b"Xen\0" not in kernel:
        return None
    return kernel


def _bzimage_release(head: bytes) -> str:
    (pointer,) = struct.unpack_from("<H", head, 0x20E)
    if not pointer:
        return ""
    text = head[pointer + 0x200 : pointer + 0x300].split(b"\0")[0]
    return text.split(b" ")[0].decode(errors="replace")


def _banner(content: bytes) -> str:
    match = BANNER.search(content)
    return match[1].decode(errors="replace") if match else ""


def _decompress(payload: bytes) -> bytes | None:
    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
        if payload.startswith(b"\x5d\0\0"):
            return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(payload)
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            return _zstd(payload)
    except (lzma.LZMAError, zlib.error):
        return None
    return None


def _zstd(payload: bytes) -> bytes | None:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # noqa: PLC0415 (3.14)
    except ImportError:
        return None
    kernel: bytes = zstd.ZstdDecompressor().decompress(payload)
    return kernel
