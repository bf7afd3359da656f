"""C values as Python values, both ways, by their BTF type.

========================  =============================================================
C                         Python
========================  =============================================================
integers, ``_Bool``       `int`, `bool`
``float``, ``double``     `float`
``enum``                  an `enum.IntEnum` member; `int` when the value has no name
``char[n]``               `str`, up to the first NUL; ``bytes()`` of it has all n bytes
``unsigned char[n]``      `bytes`, all of them
other arrays              `tuple`
structs, unions           `Record`: attributes by member name
pointers                  `int`
no BTF                    `bytes`
========================  =============================================================

What is read equals what is written for it: the name of an enum, an address (text or `ipaddress`)
for integers, arrays and structs of its size, a dict or a tuple of a struct, a list of an array.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pytest_bpf.kernel.values.decoding import Decoder, decoder
from pytest_bpf.kernel.values.encoding import Encoder, c_name, describe, encoder
from pytest_bpf.kernel.values.records import Record

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type

__all__ = ["Codec", "Record", "c_name", "codec", "describe"]


@dataclass(frozen=True)
class Codec:
    """One C type: its ``size`` in bytes, and the way there and back."""

    size: int
    decode: Decoder
    encode: Encoder


@cache
def codec(c_type: Type) -> Codec:
    """Return the codec of a type; building one costs microseconds, and is done once."""
    return Codec(c_type.size, decoder(c_type), encoder(c_type))
