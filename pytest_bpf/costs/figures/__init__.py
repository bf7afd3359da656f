"""What a cost is called, its unit, and the values that hold costs."""
