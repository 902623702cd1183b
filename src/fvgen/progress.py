"""Progress of everything that takes longer than two seconds: bars on terminals, and a watcher where there is one."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

Watcher = Callable[[str, int, int | None], None]
"""Told (description, items done, items in all or ``None``) before each item; what it raises ends the work."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_options: ContextVar[dict[str, Any]] = ContextVar("options", default={})  # noqa: B039  (never changed in place)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell ``watcher`` of all that :func:`track` follows inside this block, in this thread."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def bars(**options: Any) -> Iterator[None]:
    """Options of tqdm (``disable``, ``leave``, ...) for every bar inside this block, in this thread."""
    token = _options.set({**_options.get(), **options})
    try:
        yield
    finally:
        _options.reset(token)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterate over ``items`` behind a bar that appears only once two seconds have passed, and only on a terminal."""
    shown = tqdm(items, **_usual(desc=description, total=total))
    watcher = _watcher.get()
    return shown if watcher is None else _told(shown, shown.total, description, watcher)


def _told(items: Iterable[T], total: int | None, description: str, watcher: Watcher) -> Iterator[T]:
    done = 0
    for item in items:
        watcher(description, done, total)
        yield item
        done += 1
    watcher(description, done, total)


def bar(size: int, description: str, unit: str = "B") -> Any:
    """A bar over ``size`` bytes or other units with ``update(number)``, for a ``with``; it appears as track's does."""
    return tqdm(**_usual(total=size, desc=description, unit=unit, unit_scale=unit == "B"))


def _usual(**options: Any) -> dict[str, Any]:
    return {"delay": 2.0, "leave": False, "dynamic_ncols": True, "disable": None, **options, **_options.get()}


def note(message: str) -> None:
    """Say on stderr, in one line that no bar tears, what was done otherwise than asked, such as what was left out."""
    tqdm.write(f"fvgen: {' '.join(message.split())}", file=sys.stderr)
