"""Sources in BCC's dialect of C, loaded into the same `Object` as all others.

BCC prints its messages on the standard error output, and loses memory with each source. So it runs
in a process of its own, by the Python that has it, and hands over what it has loaded as
descriptors. Nothing of BCC is imported here.
"""

from pytest_bpf.bcc.loading import load_bcc

__all__ = ["load_bcc"]
