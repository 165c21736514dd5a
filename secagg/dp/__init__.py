"""Differential privacy: noise shares, what they cost, and the ledger of what was spent.

Integers and numbers only: no sockets, clocks or files, and nothing of learning. Source:
specs/50-dp.md.
"""
