"""The federated run as state machines: no sockets, no clocks."""
