"""Progress bars for everything that takes longer than two seconds."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterate over ``items`` behind a bar that appears only once two seconds have passed, and only on a terminal."""
    return tqdm(items, desc=description, total=total, delay=2.0, leave=False, dynamic_ncols=True, disable=None)
