"""Attach programs, and detach them again."""
