"""What the user reads at the end. Values in, text out."""
