"""`python -m nodes` is `secagg`: how the demo and the tests start it, whatever is on the PATH."""

from nodes.cli import main

main()
