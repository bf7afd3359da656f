"""What the kernel tells about a program, a map or a link: ``BPF_OBJ_GET_INFO_BY_FD``."""

from __future__ import annotations

import ctypes
import sys
from ctypes import c_char, c_uint8, c_uint32, c_uint64
from pathlib import Path
from typing import TypeVar

from pytest_bpf.kernel.sys import libbpf

_u64 = c_uint64


class ProgramInfo(ctypes.Structure):
    """``struct bpf_prog_info`` of ``uapi/linux/bpf.h``; sizes in bytes, times in nanoseconds."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", _u64),
        ("xlated_prog_insns", _u64),
        ("load_time", _u64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", _u64),
        ("name", c_char * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32),
        ("netns_dev", _u64),
        ("netns_ino", _u64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", _u64),
        ("jited_func_lens", _u64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", _u64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
        ("line_info", _u64),
        ("jited_line_info", _u64),
        ("nr_jited_line_info", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("jited_line_info_rec_size", c_uint32),
        ("nr_prog_tags", c_uint32),
        ("prog_tags", _u64),
        ("run_time_ns", _u64),
        ("run_cnt", _u64),
        ("recursion_misses", _u64),
        ("verified_insns", c_uint32),
        ("attach_btf_obj_id", c_uint32),
        ("attach_btf_id", c_uint32),
    )


class MapInfo(ctypes.Structure):
    """``struct bpf_map_info`` of ``uapi/linux/bpf.h``; sizes in bytes."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", c_char * 16),
        ("ifindex", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("netns_dev", _u64),
        ("netns_ino", _u64),
        ("btf_id", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_id", c_uint32),
        ("map_extra", _u64),
    )


class RawLinkInfo(ctypes.Structure):
    """The part of ``struct bpf_link_info`` that every kind of link has."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("rest", c_uint8 * 84),
    )


_Info = TypeVar("_Info", ProgramInfo, MapInfo, RawLinkInfo)


def read_info(fd: int, kind: type[_Info]) -> _Info:
    """Return what the kernel says of ``fd``; fields that it does not know stay 0.

    Raises `OSError` when ``fd`` is closed or of another kind.
    """
    info = kind()
    fill_info(fd, info)
    return info


def fill_info(fd: int, info: ctypes.Structure) -> None:
    """Have the kernel fill in ``info``, and the arrays that it points to; raise `OSError`."""
    size = c_uint32(ctypes.sizeof(info))
    libbpf.call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))


def map_ids(fd: int) -> list[int]:
    """Return the ids of the maps that a program uses; raise `OSError`."""
    count = read_info(fd, ProgramInfo).nr_map_ids
    ids = (c_uint32 * count)()
    info = ProgramInfo(nr_map_ids=count, map_ids=ctypes.addressof(ids))
    fill_info(fd, info)
    return list(ids[: info.nr_map_ids])


def first_function(fd: int) -> int:
    """Return the BTF type id of a program's own function, 0 where it has no BTF."""
    told = read_info(fd, ProgramInfo)
    if not told.nr_func_info or told.func_info_rec_size < 8:
        return 0
    record = (c_uint8 * told.func_info_rec_size)()  # struct bpf_func_info: insn_off, type_id
    info = ProgramInfo(nr_func_info=1, func_info_rec_size=len(record))
    info.func_info = ctypes.addressof(record)
    fill_info(fd, info)
    return int.from_bytes(bytes(record[4:8]), sys.byteorder)


def memlock(fd: int) -> int:
    """Return the bytes that the kernel accounts to a program or a map, in ``/proc/self/fdinfo``."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields.get("memlock", "0"))
