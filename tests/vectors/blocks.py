"""stub."""


def blocks():
    return {}
