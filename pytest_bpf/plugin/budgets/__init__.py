"""Budgets and baselines on pytest's side: tests are measured, judged, and written down."""
