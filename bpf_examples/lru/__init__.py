"""Remembering connections in a fixed room."""
