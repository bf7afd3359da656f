"""Following what happens very often: aggregate, and sample."""
