"""One long job at a time: idle -> running -> cancelling -> idle. Knows nothing of pages or of what the job does."""

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from fvgen.errors import UserError


class Phase(StrEnum):
    """Where the runner stands."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"


class Ending(StrEnum):
    """How the last job ended."""

    NONE = ""
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Cancelled(Exception):
    """Raised inside a job that was cancelled."""


@dataclass(frozen=True)
class Status:
    """The state of the runner, as everybody who watches sees it.

    Attributes:
        phase: whether a job is under way.
        job: its name; when idle, the last one's.
        doing: what it does just now, or how it ended, in words.
        done, total: of the current part; ``total`` is 0 where it is not known.
        ending: how the last job ended.
        started: how many jobs there have been.
    """

    phase: Phase = Phase.IDLE
    job: str = ""
    doing: str = ""
    done: int = 0
    total: int = 0
    ending: Ending = Ending.NONE
    started: int = 0

    @property
    def share(self) -> float:
        """How much of the current part is done, 0..1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0


Reporter = Callable[..., None]  # what is done now, items done (0), items in all (None): see Runner.report


class Runner:
    """Runs jobs in a thread of its own, never two at once. Every report is a place where a cancelled job ends.

    Args:
        on_change: told each new status, in the order in which they came about.
    """

    def __init__(self, on_change: Callable[[Status], None] = lambda status: None) -> None:
        self._on_change = on_change
        self._lock = threading.RLock()
        self._status = Status()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def status(self) -> Status:
        """The current status."""
        return self._status

    def start(self, name: str, job: Callable[[Reporter], str]) -> bool:
        """Start a job, unless one is under way.

        Args:
            name: of the job.
            job: does it, given :meth:`report` to tell what it does, and returns what is said at the end. Ending well
                it was not cancelled, whatever was asked.

        Returns:
            Whether it was started.
        """
        with self._lock:
            if self._closed or self._status.phase is not Phase.IDLE:
                return False
            self._set(Status(Phase.RUNNING, name, "starting", started=self._status.started + 1))
            self._thread = threading.Thread(target=self._run, args=(job,), name=f"fvgen {name}", daemon=True)
            self._thread.start()
            return True

    def report(self, doing: str, done: int = 0, total: int | None = None) -> None:
        """Say what the job under way does now.

        Raises:
            Cancelled: if that was asked for.
        """
        with self._lock:
            self.check()
            self._set(replace(self._status, doing=doing, done=done, total=total or 0))

    def check(self) -> None:
        """Raise `Cancelled` if the job under way was asked to end."""
        if self._status.phase is Phase.CANCELLING:
            raise Cancelled

    def cancel(self) -> bool:
        """Ask the job to end; it does at its next report. Returns whether there was one that had not been asked."""
        with self._lock:
            if self._status.phase is not Phase.RUNNING:
                return False
            self._set(replace(self._status, phase=Phase.CANCELLING, doing="cancelling", done=0, total=0))
            return True

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the job under way. Returns whether none is left."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def close(self) -> None:
        """Start no more, and ask the job under way to end."""
        with self._lock:
            self._closed = True
            self.cancel()

    def _run(self, job: Callable[[Reporter], str]) -> None:
        ending, words = Ending.DONE, ""
        try:
            words = job(self.report)
        except Cancelled:
            ending, words = Ending.CANCELLED, "nothing was kept"
        except UserError as error:
            ending, words = Ending.FAILED, str(error)
        except Exception as error:  # the page must learn of it, and the log says where
            traceback.print_exc()
            ending, words = Ending.FAILED, f"an error of the program, told in the terminal: {error}"
        with self._lock:
            self._set(Status(Phase.IDLE, self._status.job, words, ending=ending, started=self._status.started))

    def _set(self, status: Status) -> None:
        self._status = status
        self._on_change(status)
