"""A hundred events in one record."""
