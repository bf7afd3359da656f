"""C values as Python values, both ways, by their BTF type.

========================  =============================================================
C                         Python
========================  =============================================================
integers, ``_Bool``       `int`, `bool`
``float``, ``double``     `float`
``enum``                  an `enum.IntEnum` member; `int` when the value has no name
``char[n]``               `str`, up to the first NUL
``unsigned char[n]``      `bytes`, all of them
other arrays              `tuple`
structs, unions           `Record`: attributes by member name, compares with tuples and dicts
pointers                  `int`
no BTF                    `bytes`
========================  =============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pytest_bpf.kernel.decoding import Decoder, decoder
from pytest_bpf.kernel.encoding import Encoder, encoder, spelled
from pytest_bpf.kernel.records import Record, record_class

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type

__all__ = ["Codec", "Record", "codec", "record_class", "spelled"]


@dataclass(frozen=True)
class Codec:
    """One C type: its ``size`` in bytes, and the way there and back."""

    size: int
    decode: Decoder
    encode: Encoder


@cache
def codec(of: Type) -> Codec:
    """Return the codec of a type; building one costs microseconds, and is done once."""
    return Codec(of.size, decoder(of), encoder(of))
