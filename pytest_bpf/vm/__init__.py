"""The same commands on another kernel: a virtual machine on this machine's own files.

A stock kernel boots once with a Python that has imported what tests need; its state is saved, and
every later run restores it, in a fraction of a second, also without KVM and as an ordinary user.
"""

NO_MACHINE = "PYTEST_BPF_NO_MACHINE"
"""The variable by which a command learns that it runs here, and why there is no machine."""
