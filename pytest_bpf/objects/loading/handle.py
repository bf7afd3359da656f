"""libbpf's ``struct bpf_object *``: its programs and maps by name, and what has to outlive it."""

from __future__ import annotations

import ctypes
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel.btf import Btf
from pytest_bpf.kernel.btf.dwarf import read_dwarf
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.libbpf_options import OpenOptions
from pytest_bpf.objects import elf
from pytest_bpf.objects.loading.sections import register_sections
from pytest_bpf.objects.maps.template import inner_template
from pytest_bpf.objects.refusals import first_cause

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.elf import SourceLine
    from pytest_bpf.objects.maps.template import MapTemplate


class Handle:
    """An object that libbpf has open: ``programs`` and ``maps`` are its pointers by name.

    ``kconfig`` is text as in ``/boot/config-*``, ``btf_path`` a file with the types to relocate
    by. Raises `LoadError` when libbpf cannot open it.
    """

    def __init__(
        self, path: Path, content: bytes, kconfig: str | None = None, btf_path: Path | None = None
    ) -> None:
        self.path = path
        self.content = content
        self._logs: dict[str, ctypes.Array[ctypes.c_char]] = {}
        options = OpenOptions(
            object_name=path.name.partition(".")[0].encode(),
            kconfig=kconfig.encode() if kconfig is not None else None,
            btf_custom_path=bytes(btf_path) if btf_path is not None else None,
        )
        register_sections()
        with libbpf.messages() as messages:
            try:
                self.pointer: int = libbpf.call(
                    "bpf_object__open_mem", content, len(content), ctypes.byref(options)
                )
            except OSError as error:
                why = first_cause(messages[-1:], libbpf.reason(error.errno or 0))
                raise LoadError(f"{path}: libbpf cannot open it: {why}", error.errno or 0) from None

    @cached_property
    def programs(self) -> dict[str, int]:
        """The pointers of the programs by name."""
        return dict(_each("program", self.pointer))

    @cached_property
    def maps(self) -> dict[str, int]:
        """The pointers of the maps by name, those of global variables too."""
        return dict(_each("map", self.pointer))

    @cached_property
    def btf(self) -> Btf | None:
        """The types of the object; None when it has none."""
        pointer = libbpf.function("bpf_object__btf")(self.pointer)
        return Btf(pointer, read_dwarf(self.content)) if pointer else None

    @cached_property
    def map_types(self) -> dict[str, tuple[Type | None, Type | None]]:
        """The declared types of keys and values.

        Ask before the object is loaded: loading, libbpf forgets the types of maps whose kind the
        kernel takes no BTF for.
        """
        return {n: (self._type(m, "key"), self._type(m, "value")) for n, m in self.maps.items()}

    @cached_property
    def inner_maps(self) -> dict[str, MapTemplate]:
        """What maps of maps hold, as declared; ask before the object is loaded, as with types."""
        specs = {}
        for name, pointer in self.maps.items():
            if inner := libbpf.function("bpf_map__inner_map")(pointer):
                types = (self._type(inner, "key"), self._type(inner, "value"))
                specs[name] = inner_template(inner, *types)
        return specs

    @cached_property
    def section_starts(self) -> dict[str, tuple[str, int]]:
        """Where each program starts: its section, and the instruction in it."""
        starts: dict[str, tuple[str, int]] = {}
        lengths: Counter[str] = Counter()
        for name, pointer in self.programs.items():
            section = self.section(name)
            starts[name] = (section, lengths[section])
            lengths[section] += libbpf.call("bpf_program__insn_cnt", pointer)
        return starts

    def section(self, program: str) -> str:
        """Return the section that a program stands in."""
        raw: bytes = libbpf.call("bpf_program__section_name", self.programs[program])
        return raw.decode(errors="replace")

    def source_lines(self) -> list[SourceLine]:
        """Return the line information of the object."""
        return list(elf.source_lines(self.content))

    def sections_of_globals(self) -> dict[str, str]:
        """Return the maps of global variables, by section: ``{".rodata": "count.rodata"}``."""
        is_internal = libbpf.function("bpf_map__is_internal")
        return {map_section(n): n for n, pointer in self.maps.items() if is_internal(pointer)}

    def autoloaded(self) -> dict[str, int]:
        """Return the programs that are loaded with the object."""
        autoload = libbpf.function("bpf_program__autoload")
        return {name: pointer for name, pointer in self.programs.items() if autoload(pointer)}

    def created_maps(self) -> dict[str, int]:
        """Return the maps that exist in the kernel, once the object is loaded.

        A newer libbpf has descriptors of maps that it does not create as well.
        """
        fd = libbpf.function("bpf_map__fd")
        autocreate = libbpf.function("bpf_map__autocreate")
        return {name: m for name, m in self.maps.items() if autocreate(m) and fd(m) >= 0}

    def keep_log(self, program: str, size: int) -> None:
        """Give a program a buffer for the verifier's log."""
        log = self._logs[program] = ctypes.create_string_buffer(size)
        libbpf.call("bpf_program__set_log_buf", self.programs[program], log, len(log))

    def log(self, program: str) -> str:
        """Return what the verifier said about a program."""
        return self._logs[program].value.decode(errors="replace") if program in self._logs else ""

    def close(self) -> None:
        """Free it with its programs and maps; a second time does nothing."""
        pointer, self.pointer = self.pointer, 0
        if pointer:
            libbpf.function("bpf_object__close")(pointer)
        self._logs.clear()

    def _type(self, pointer: int, part: str) -> Type | None:
        type_id = libbpf.call(f"bpf_map__btf_{part}_type_id", pointer)
        return self.btf.type(type_id) if self.btf and type_id else None


def map_section(map_name: str) -> str:
    """Return the section of a map of globals: ``.rodata`` of ``count.rodata``, ``.data.hot``."""
    return map_name[map_name.index(".") :] if "." in map_name else map_name


def _each(kind: str, pointer: int) -> Iterator[tuple[str, int]]:
    """Yield the names of an object's programs or maps, each with libbpf's pointer."""
    successor = libbpf.function(f"bpf_object__next_{kind}")
    name = libbpf.function(f"bpf_{kind}__name")
    current = successor(pointer, None)
    while current:
        yield name(current).decode(errors="replace"), current
        current = successor(pointer, current)
