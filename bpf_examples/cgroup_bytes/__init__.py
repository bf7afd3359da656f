"""Accounting traffic to cgroups."""
