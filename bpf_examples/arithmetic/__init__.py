"""Dividing by a constant without dividing."""
