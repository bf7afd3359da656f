"""What runs in the machine: a Python that is process 1, and a warm one that waits."""
