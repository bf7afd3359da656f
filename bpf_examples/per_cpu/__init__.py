"""Counting on several CPUs at once."""
