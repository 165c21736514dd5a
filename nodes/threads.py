"""One thread for products of vectors: what a daemon's numpy is told when it starts.

BLAS gives a product of some ten thousand numbers to all cores, and its threads then spin for tens
of milliseconds in case there is another. A round has few such products and shares its machine with
other processes: the threads cost it more than they save.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

__all__ = ["use_one_blas_thread"]


def use_one_blas_thread() -> None:
    """Keep the BLAS of numpy, for the whole process, to the thread that calls it."""
    threadpool_limits(limits=1, user_api="blas")
