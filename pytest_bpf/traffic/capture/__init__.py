"""What passes an interface: a ring of the kernel's packet sockets, read in bulk.

`capture.Capture` is what `Interface.capture` returns, `pcap` and `pcapng` are files.
"""
