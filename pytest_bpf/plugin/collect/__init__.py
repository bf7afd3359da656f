"""Tests written in C: the kernel's annotations, Cilium's sections, and a small form of our own."""
