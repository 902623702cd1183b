"""Progress bars for everything that takes longer than two seconds."""

from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterate over ``items`` behind a bar that appears only once two seconds have passed, and only on a terminal."""
    return tqdm(items, desc=description, total=total, delay=2.0, leave=False, dynamic_ncols=True, disable=None)


def bar(size: int, description: str) -> Any:
    """A bar over ``size`` bytes with ``update(bytes)``, for a ``with``; it appears as that of :func:`track` does."""
    return tqdm(
        total=size,
        desc=description,
        unit="B",
        unit_scale=True,
        delay=2.0,
        leave=False,
        dynamic_ncols=True,
        disable=None,
    )
