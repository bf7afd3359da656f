"""Filtering in the kernel, or in user space."""
