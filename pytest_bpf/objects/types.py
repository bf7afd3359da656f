"""C types of an object by name, and their values as bytes, as Python values and as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError, CompileError, UnknownNameError, ValueTypeError, near_matches
from pytest_bpf.kernel.btf.c_types import Opaque, Struct
from pytest_bpf.kernel.btf.dwarf import Dwarf, read_dwarf
from pytest_bpf.kernel.values.codec import c_name, codec
from pytest_bpf.kernel.values.dtypes import dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from pytest_bpf.kernel.btf import Btf, Type

LINE = "const {name} *pytest_bpf_unused __attribute__((unused));"
"""What keeps a type in an object that does not use it."""


@dataclass(frozen=True)
class CType:
    """One C type: its ``size`` in bytes, and its values as bytes and as Python values."""

    name: str
    type: Type = field(repr=False)

    @property
    def size(self) -> int:
        """Size in bytes, with padding."""
        return self.type.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of the same layout, as in `Map.snapshot`."""
        return dtype(self.type)

    @property
    def members(self) -> dict[str, int]:
        """The offset in bytes of each member of a struct or union; empty for other types."""
        if not isinstance(self.type, Struct):
            return {}
        return {member.name: member.bit_offset // 8 for member in self.type.flat_members()}

    def decode(self, raw: bytes, offset: int = 0) -> Any:
        """Return the value at ``offset`` of ``raw``; what follows it is ignored.

        Raises `ValueTypeError` when there are fewer bytes than ``size``.
        """
        if offset < 0 or len(raw) - offset < self.size:
            raise ValueTypeError(
                f"{self.name} has {self.size} bytes, and {len(raw)} from offset {offset} are "
                f"{max(len(raw) - offset, 0)}"
            )
        return codec(self.type).decode(raw, offset)

    def encode(self, value: Any) -> bytes:
        """Return the ``size`` bytes of a value: a dict or tuple of members for a struct.

        Raises `ValueTypeError` for a value that does not fit.
        """
        return codec(self.type).encode(value, self.name)


class Types:
    """The C types of an object by name: ``types["struct event"]``.

    They come from its BTF, from its DWARF, and else from its source, where that is there: a line
    that names the type is compiled with it.
    """

    def __init__(
        self,
        btf: Btf | None = None,
        content: bytes = b"",
        owner: str = "the object",
        compile_line: Callable[[str], bytes] | None = None,
    ) -> None:
        self.btf = btf
        self.compile_line = compile_line
        self._owner = owner
        self.content = content
        self.not_loaded: frozenset[str] = frozenset()
        """Programs of the object that its load left out: what they would write is no event."""
        self._closed = False

    def __getitem__(self, name: str) -> CType:
        """Return a type: ``"struct event"``, ``"event_t"``, ``"unsigned int"``.

        Raises `UnknownNameError` with the near matches.
        """
        c_type = self.find(name)
        return CType(c_name(c_type) if isinstance(c_type, Struct) else name, c_type)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self.find(name))
        except UnknownNameError:
            return False

    def __repr__(self) -> str:
        return f"<Types of {self._owner}>"

    @property
    def dwarf(self) -> Dwarf:
        """The object's DWARF: empty where it was compiled without, or stripped."""
        return read_dwarf(self.content)

    def find(self, name: str) -> Type:
        """Return a C type by its name; the errors are those of ``[]``."""
        if self._closed:
            raise BpfError(f"{self._owner} is closed, and its types with it")
        for source in (self._from_btf, self._from_dwarf, self._from_source):
            c_type = source(name)
            if c_type is not None and not (isinstance(c_type, Opaque) and not c_type.size):
                return c_type
        raise self._unknown(name)

    def close(self) -> None:
        """Forget the types, which are the object's."""
        self._closed, self.btf, self.content = True, None, b""

    def _from_btf(self, name: str) -> Type | None:
        try:
            return self.btf.find(name) if self.btf else None
        except UnknownNameError:
            return None

    def _from_dwarf(self, name: str) -> Type | None:
        try:
            return self.dwarf.find(name) if self.content else None
        except UnknownNameError:
            return None

    def _from_source(self, name: str) -> Type | None:
        if self.compile_line is None or not name.replace(" ", "_").isidentifier():
            return None
        try:
            return read_dwarf(self.compile_line(LINE.format(name=name))).find(name)
        except (CompileError, UnknownNameError):
            return None

    def _unknown(self, name: str) -> UnknownNameError:
        if self.btf is None and self.dwarf.empty:
            return UnknownNameError(
                f"there is no type {name!r}: {self._owner} has neither BTF nor DWARF; compile it "
                "with -g"
            )
        try:
            if self.btf is not None and self.dwarf.empty:
                self.btf.find(name)
        except UnknownNameError as error:
            return error
        keyword, _, bare = name.strip().rpartition(" ")
        names = self.dwarf.names(keyword if keyword in {"struct", "union", "enum"} else "")
        hint = near_matches(bare, names)
        return UnknownNameError(f"there is no type {name!r} in {self._owner}{hint}")
