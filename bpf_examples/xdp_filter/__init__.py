"""Dropping packets before the network stack sees them."""
