"""Packets as layers: values alone, no privilege and no kernel.

`packet.Packet` takes the bytes of a frame apart when it is asked for a layer, and names the fields
in which two frames differ.
"""
