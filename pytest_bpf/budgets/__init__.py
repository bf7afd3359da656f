"""Limits, baselines, comparison, verdicts: pure functions over figures."""
