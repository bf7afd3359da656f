"""Loaded programs: their identity, test runs and verifier statistics."""
