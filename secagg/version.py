"""The version of the distribution and of the protocol it speaks."""

VERSION = "0.1.0"
PROTOCOL_VERSION = 1
