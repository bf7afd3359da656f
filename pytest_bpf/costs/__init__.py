"""What programs cost, as plain values with units; each module is imported by whoever needs it."""
