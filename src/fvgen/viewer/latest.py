"""Work in a thread of its own that is asked for more often than it can be done, such as the picture under a slider."""

import threading
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Calls ``work`` with what was asked for since it last began.

    Args:
        work: in a thread of its own.
        merge: what becomes of a request that was not begun when the next one comes: ``(old, new)`` to both in one; by
            default the old one is dropped.
    """

    def __init__(self, work: Callable[[T], None], merge: Callable[[T, T], T] = lambda old, new: new) -> None:
        self._work, self._merge = work, merge
        self._wake = threading.Condition()
        self._request: T | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="fvgen page", daemon=True)
        self._thread.start()

    def request(self, what: T) -> None:
        """Ask for ``what``. Returns at once."""
        with self._wake:
            self._request = what if self._request is None else self._merge(self._request, what)
            self._wake.notify()

    def close(self) -> None:
        """End the thread after the request it works on."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._request is not None or self._closed)
                if self._closed:
                    return
                what, self._request = self._request, None
            assert what is not None
            try:
                self._work(what)
            except Exception:  # what fails must not end all that comes later
                traceback.print_exc()
