"""One module for each way of attaching: ``attach(program, target, options)`` returns the link."""
