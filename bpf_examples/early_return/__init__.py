"""Reject first, work afterwards."""
