"""The version of the distribution and of the protocol it speaks."""

VERSION = "0.1.0"
PROTOCOL_VERSION = 1  # W-11: one more for whatever changes a message
