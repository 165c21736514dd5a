"""Daemons, simulator and command line: everything that touches sockets, clocks and files."""
