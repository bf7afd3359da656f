"""An object that is open and not loaded yet: set up, then handed to the kernel."""

from __future__ import annotations

import ctypes
import errno
from collections import Counter
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, LoadError, UnavailableError
from pytest_bpf.kernel import enums, features, libbpf
from pytest_bpf.kernel.btf import Btf
from pytest_bpf.kernel.privilege import privilege
from pytest_bpf.objects import elf, refusals, verifier
from pytest_bpf.objects.globals import set_initial
from pytest_bpf.objects.lacking import lacking
from pytest_bpf.objects.layout import kind_name
from pytest_bpf.objects.loaded import program_type
from pytest_bpf.objects.names import unknown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.elf import SourceLine
    from pytest_bpf.objects.map import Map
    from pytest_bpf.objects.setup import Setup

EVENT_MAPS = {27: 0, 4: 4}
"""``BPF_MAP_TYPE_RINGBUF``, ``_PERF_EVENT_ARRAY``: the size of keys and values they must have."""

SCHED_CLS = 3
"""``BPF_PROG_TYPE_SCHED_CLS``."""

TC_SECTIONS = ("tc/", "tcx/", "tc_ingress", "tc_egress", "classifier/")
"""Sections of tc programs that libbpf 1.1 does not know yet."""


class Opened:
    """libbpf's ``struct bpf_object *`` with what has to outlive its loading."""

    def __init__(self, path: Path, content: bytes, setup: Setup) -> None:
        self.path = path
        self.content = content
        self.setup = setup
        self._logs: dict[str, ctypes.Array[ctypes.c_char]] = {}
        self.pointer = _open(path, content)
        try:
            found = libbpf.function("bpf_object__btf")(self.pointer)
            self.btf = Btf(found) if found else None
            self.programs = {_name("program", p): p for p in each("program", self.pointer)}
            self.starts = self._starts()
            self.maps = {_name("map", m): m for m in each("map", self.pointer)}
            # libbpf forgets the types of maps whose kind the kernel takes no BTF for
            self.types = {
                n: (self._type(m, "key"), self._type(m, "value")) for n, m in self.maps.items()
            }
            self._set_up()
        except BaseException:
            self.close()
            raise

    def load(self) -> None:
        """Hand it to the kernel; raises what `Object.load` says."""
        with libbpf.messages() as said:
            try:
                libbpf.call("bpf_object__load", self.pointer)
            except OSError as error:
                raise self._refused(error, said) from None

    def log(self, program: str) -> str:
        """Return what the verifier has said of a program."""
        return self._logs[program].value.decode(errors="replace") if program in self._logs else ""

    def whole_log(self, program: str, level: int) -> str:
        """Load one program once more for its whole log, and let it go."""
        again = Opened(self.path, self.content, self.setup.with_whole_log(program, level))
        try:
            with libbpf.messages():
                libbpf.function("bpf_object__load")(again.pointer)
            return again.log(program)
        finally:
            again.close()

    def loaded_programs(self) -> dict[str, int]:
        """Return libbpf's pointers of the programs that were loaded, by name."""
        autoload = libbpf.function("bpf_program__autoload")
        return {name: pointer for name, pointer in self.programs.items() if autoload(pointer)}

    def created_maps(self) -> dict[str, int]:
        """Return libbpf's pointers of the maps that exist in the kernel, by name."""
        fd = libbpf.function("bpf_map__fd")
        return {name: pointer for name, pointer in self.maps.items() if fd(pointer) >= 0}

    def close(self) -> None:
        """Let libbpf free it, with the programs and maps that it made; only once."""
        pointer, self.pointer = self.pointer, 0
        if pointer:
            libbpf.function("bpf_object__close")(pointer)
        self._logs.clear()

    def _type(self, pointer: int, which: str) -> Type | None:
        """Return a map's declared type of "key" or "value", None when there is none."""
        type_id = libbpf.call(f"bpf_map__btf_{which}_type_id", pointer)
        return self.btf.type(type_id) if self.btf and type_id else None

    # -- setting up --------------------------------------------------------------------------

    def _set_up(self) -> None:
        setup, where = self.setup, self.path.name
        for name in (*(setup.programs or ()), *setup.attach_to):
            if name not in self.programs:
                raise unknown("program", name, where, self.programs)
        for name in (*setup.max_entries, *setup.maps):
            if name not in self.maps:
                raise unknown("map", name, where, self.maps)
        for name, pointer in self.programs.items():
            self._set_up_program(name, pointer)
        for name, pointer in self.maps.items():
            self._set_up_map(name, pointer)
        if setup.globals and self.btf is None:
            raise LoadError(f"{where}: has no BTF to find global variables in; compile it with -g")
        if setup.globals and self.btf is not None:
            pointers = {section(n): m for n, m in self.maps.items() if internal(m)}
            set_initial(where, self.btf.sections(), pointers, setup.globals)

    def _set_up_program(self, name: str, pointer: int) -> None:
        setup = self.setup
        if setup.programs is not None:
            libbpf.call("bpf_program__set_autoload", pointer, name in setup.programs)
        if self._section(name).startswith(TC_SECTIONS) and program_type(pointer) == "unspec":
            libbpf.call("bpf_program__set_type", pointer, SCHED_CLS)
        if name in setup.attach_to:
            target, function = setup.attach_to[name]
            try:
                arguments = (pointer, target.fd, function.encode())
                libbpf.call("bpf_program__set_attach_target", *arguments)
            except OSError as error:
                raise LoadError(
                    f"{self.path.name}: program {name!r} ({self._section(name)}) cannot attach to "
                    f"function {function!r} of program {target.name!r}: "
                    f"{libbpf.reason(error.errno or 0)}; it must be a global function there",
                    error.errno or 0,
                ) from None
        if not libbpf.call("bpf_program__autoload", pointer):
            return
        if program_type(pointer) == "unspec":
            raise LoadError(
                f"{self.path.name}: program {name!r}: libbpf {libbpf.version()} knows no section "
                f"{self._section(name)!r}; see SEC() in its documentation for those that it knows"
            )
        if name not in setup.attach_to and program_type(pointer) == "ext":
            raise LoadError(
                f"{self.path.name}: program {name!r} ({self._section(name)}) replaces a function "
                f"of a loaded program: pass attach_to={{{name!r}: (program, 'function')}}"
            )
        log = self._logs[name] = ctypes.create_string_buffer(setup.log_size)
        libbpf.call("bpf_program__set_log_level", pointer, setup.log_level)
        libbpf.call("bpf_program__set_log_buf", pointer, log, len(log))

    def _set_up_map(self, name: str, pointer: int) -> None:
        setup, where = self.setup, f"{self.path.name}: map {name!r}"
        libbpf.call("bpf_map__set_pin_path", pointer, None)  # what a test makes is its own
        if name in setup.max_entries:
            wanted = setup.max_entries[name]
            if not 0 < wanted < 2**32:
                raise LoadError(f"{where}: max_entries={wanted}; it takes 1 to {2**32 - 1}")
            libbpf.call("bpf_map__set_max_entries", pointer, wanted)
        size = EVENT_MAPS.get(libbpf.call("bpf_map__type", pointer))
        if size is not None:
            for which in ("key", "value"):  # what is declared is the type of the events
                libbpf.call(f"bpf_map__set_{which}_size", pointer, size)
        if name in setup.maps:
            _share(where, pointer, setup.maps[name])

    # -- refusals ----------------------------------------------------------------------------

    def _refused(self, error: OSError, said: list[str]) -> BpfError:
        code = error.errno or 0
        if code in {errno.EPERM, errno.EACCES} and (missing := privilege()):
            return UnavailableError(f"{self.path}: cannot be loaded: {missing}")
        uncreated = refusals.refused_map(said)
        if uncreated is not None:
            return self._uncreated(*uncreated, code)
        name = refusals.refused_program(said)
        if name is None:
            why = refusals.why(said, libbpf.reason(code))
            return LoadError(f"{self.path}: cannot be loaded: {why}", code)
        section_ = self._section(name)
        log = self.whole_log(name, 1)
        if not verifier.reason(log):
            missing = lacking(section_, program_type(self.programs[name]))
            if missing:
                return UnavailableError(
                    f"{self.path}: program {name!r} ({section_}) cannot be loaded here: {missing}"
                )
            return LoadError(
                f"{self.path}: the kernel refuses program {name!r} ({section_}) before verifying "
                f"it: {libbpf.reason(code)}; it may lack that kind of program, or the target",
                code,
            )
        return verifier.rejection(
            self.path, name, self.starts[name], code=code, log=log, known=self._source_lines()
        )

    def _uncreated(self, name: str, why: str, code: int) -> BpfError:
        pointer = self.maps[name]
        kind = kind_name(libbpf.call("bpf_map__type", pointer))
        numbers = ", ".join(
            f"{what} {libbpf.call(f'bpf_map__{what}', pointer)}"
            for what in ("max_entries", "key_size", "value_size")
        )
        if kind in enums.MAP_TYPES and not features.map_type(kind):
            return UnavailableError(
                f"{self.path}: map {name!r} cannot be created: this kernel has no {kind} maps"
            )
        return LoadError(
            f"{self.path}: map {name!r} ({kind}, {numbers}) cannot be created: {why}", code
        )

    def _source_lines(self) -> list[SourceLine]:
        return list(elf.source_lines(self.content))

    def _starts(self) -> dict[str, tuple[str, int]]:
        """Return where each program starts: its section, and the instruction in it."""
        starts: dict[str, tuple[str, int]] = {}
        counted: Counter[str] = Counter()
        for name, pointer in self.programs.items():
            in_section = self._section(name)
            starts[name] = (in_section, counted[in_section])
            counted[in_section] += libbpf.call("bpf_program__insn_cnt", pointer)
        return starts

    def _section(self, program: str) -> str:
        raw: bytes = libbpf.call("bpf_program__section_name", self.programs[program])
        return raw.decode(errors="replace")


class _OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts`` up to the only member in use."""

    _fields_ = (("sz", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


def _open(path: Path, content: bytes) -> int:
    options = _OpenOptions(ctypes.sizeof(_OpenOptions), path.name.partition(".")[0].encode())
    arguments = (content, len(content), ctypes.byref(options))
    with libbpf.messages() as said:
        try:
            return int(libbpf.call("bpf_object__open_mem", *arguments))
        except OSError as error:
            why = said[-1] if said else libbpf.reason(error.errno or 0)
            raise LoadError(f"{path}: libbpf cannot open it: {why}", error.errno or 0) from None


def _share(where: str, pointer: int, other: Map) -> None:
    """Put a map that exists in the place of one that is declared alike."""
    ours, theirs = libbpf.call("bpf_map__type", pointer), other.info
    different = [] if ours == theirs.type else [f"a {other.type}, not a {kind_name(ours)}"]
    for size in ("key_size", "value_size") if ours not in EVENT_MAPS else ():
        declared, there = libbpf.call(f"bpf_map__{size}", pointer), getattr(theirs, size)
        if declared != there:
            different.append(f"of {size} {there}, not {declared}")
    if different:
        raise LoadError(f"{where}: {other.name!r} cannot take its place: it is {different[0]}")
    try:
        libbpf.call("bpf_map__reuse_fd", pointer, other.fd)
    except OSError as error:
        raise LoadError(f"{where}: cannot be shared: {error.strerror}") from None


def each(what: str, pointer: int) -> Iterator[int]:
    """Yield libbpf's pointers of an object's programs or maps."""
    following = libbpf.function(f"bpf_object__next_{what}")
    current = following(pointer, None)
    while current:
        yield current
        current = following(pointer, current)


def internal(pointer: int) -> bool:
    """Say whether a map holds global variables."""
    return bool(libbpf.call("bpf_map__is_internal", pointer))


def section(map_name: str) -> str:
    """Return the section of an internal map: ``.rodata`` of ``count.rodata``, ``.data.hot``."""
    return map_name[map_name.index(".") :] if "." in map_name else map_name


def _name(what: str, pointer: int) -> str:
    name: bytes = libbpf.call(f"bpf_{what}__name", pointer)
    return name.decode(errors="replace")
