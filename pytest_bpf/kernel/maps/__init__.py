"""Elements of maps as bytes: one by one, in batches, or dumped whole."""
