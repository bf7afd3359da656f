"""Packets as layers: values alone, no privilege and no kernel.

`Packet` takes the bytes of a frame apart when it is asked for a layer, and names the fields in
which two frames differ.
"""

from __future__ import annotations

from pytest_bpf.kernel.layers.packet import Packet

__all__ = ["Packet"]
