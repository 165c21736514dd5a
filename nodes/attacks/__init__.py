"""An evil coordinator, an evil node and an evil network, played against the real state machines."""
