"""Work that only its newest request matters for, such as the picture under a slider."""

import threading
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Calls ``work`` in a thread of its own with the newest request; those it had no time for are dropped."""

    def __init__(self, work: Callable[[T], None]) -> None:
        self._work = work
        self._wake = threading.Condition()
        self._request: T | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="fvgen preview", daemon=True)
        self._thread.start()

    def request(self, what: T) -> None:
        """Ask for ``what`` instead of whatever was asked for and not begun."""
        with self._wake:
            self._request = what
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
            except Exception:  # one bad picture must not end all later ones
                traceback.print_exc()
