"""The structures by which libbpf is told how to attach (``bpf/libbpf.h``, ``bpf/bpf.h``)."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_size_t, c_uint32, c_uint64


class _Options(ctypes.Structure):
    """A structure that begins with its own size, ``sz``, which is filled in."""

    def __init__(self, **members: object) -> None:
        super().__init__(sz=ctypes.sizeof(self), **members)


class KprobeOptions(_Options):
    """``struct bpf_kprobe_opts``."""

    _fields_ = (
        ("sz", c_size_t),
        ("bpf_cookie", c_uint64),
        ("offset", c_size_t),
        ("retprobe", ctypes.c_bool),
    )


class UprobeOptions(_Options):
    """``struct bpf_uprobe_opts``."""

    _fields_ = (
        ("sz", c_size_t),
        ("ref_ctr_offset", c_size_t),
        ("bpf_cookie", c_uint64),
        ("retprobe", ctypes.c_bool),
        ("func_name", ctypes.c_char_p),
    )


class LinkOptions(_Options):
    """``struct bpf_link_create_opts``, of which only the flags are used."""

    _fields_ = (("sz", c_size_t), ("flags", c_uint32), ("rest", c_uint64 * 7))


class IterOptions(_Options):
    """``struct bpf_iter_attach_opts``; the link info is a map's descriptor."""

    _fields_ = (
        ("sz", c_size_t),
        ("link_info", ctypes.POINTER(c_uint32)),
        ("link_info_len", c_uint32),
    )


class TcHook(_Options):
    """``struct bpf_tc_hook``."""

    _fields_ = (
        ("sz", c_size_t),
        ("ifindex", c_int),
        ("attach_point", c_int),
        ("parent", c_uint32),
    )


class TcOptions(_Options):
    """``struct bpf_tc_opts``."""

    _fields_ = (
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    )
