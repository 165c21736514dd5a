"""Secure aggregation: protocols and numbers, without sockets, clocks or files.

Everything here is a pure function or a state machine whose time and randomness are arguments.
The normative text is in ``specs/``.
"""

from secagg.version import PROTOCOL_VERSION, VERSION

__version__ = VERSION
__all__ = ["PROTOCOL_VERSION", "VERSION"]
