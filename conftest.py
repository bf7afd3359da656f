"""The project's own tests need pytest's `pytester`."""

pytest_plugins = ["pytester"]
