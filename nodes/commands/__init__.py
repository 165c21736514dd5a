"""One module a command; `nodes.cli` loads them when they are called."""
