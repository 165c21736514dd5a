"""The devices of a source, as benches of learning load them."""

from __future__ import annotations

from collections.abc import Sequence

from fl_core.data.dataset import DeviceData, drop_columns
from fl_core.data.sources import list_devices, load_device

__all__ = ["load_devices"]


def load_devices(source: str, drop: Sequence[str], *, seed: int) -> list[DeviceData]:
    """Load all devices without the columns of some patterns; the seed draws validation rows.

    Raises:
        DataError: as `fl_core.data.sources.load_device`, or no column is left.
    """
    devices = [load_device(source, name, seed=seed) for name in list_devices(source)]
    return [drop_columns(each, drop) for each in devices] if drop else devices
