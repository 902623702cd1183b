"""The controls of the page. They hold no state that matters: the session does, and `Controls.refresh` shows it."""

import threading
from collections.abc import Callable
from html import escape
from typing import Any

from fvgen.errors import UserError
from fvgen.viewer.desk import NONE, Desk
from fvgen.viewer.path_panel import PathPanel
from fvgen.viewer.pictures import side_by_side
from fvgen.viewer.runs import Ending, Phase, Status
from fvgen.viewer.scenery import Scenery
from fvgen.viewer.session import Session

_KINDS = {"photos": "photographs", "points": "points", "path": "path", "frames": "generated frames"}
_JOBS = {"scene": "Building the scene", "generate": "Generating"}
_BLUE, _ORANGE, _RED, _GREEN = "#1971c2", "#e8590c", "#c92a2a", "#2f9e44"


class StatusPanel:
    """What the runner does, and the message line."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._line = desk.gui.add_html("")
        self._progress = desk.gui.add_progress_bar(0.0, visible=False)
        desk.add_message()

    def refresh(self) -> None:
        """Show it as it is now."""
        status = self._desk.session.status
        title, color = _title(status)
        doing = f"{status.doing} ({status.done} of {status.total})" if status.total else status.doing
        doing = "" if doing == title.lower() else doing
        self._line.content = (
            f'<div id="fvgen-status" style="padding:2px 12px 4px;font-size:13px"><b style="color:{color}">{title}</b>'
            f'<span style="overflow-wrap:anywhere"> {escape(doing)}</span></div>'
        )
        self._progress.visible = status.phase is not Phase.IDLE
        self._progress.value = round(100 * status.share, 1)


def _title(status: Status) -> tuple[str, str]:
    """The status in a word or two, and its colour."""
    if status.phase is Phase.CANCELLING:
        return "Cancelling", _ORANGE
    if status.phase is Phase.RUNNING:
        return _JOBS[status.job], _BLUE
    if status.ending is Ending.FAILED:
        return "Failed", _RED
    return ("Cancelled", _ORANGE) if status.ending is Ending.CANCELLED else ("Ready", _GREEN)


class RunPanel:
    """Generate and cancel; save and load paths."""

    def __init__(self, desk: Desk) -> None:
        self._desk, gui = desk, desk.gui
        self._name = gui.add_text("Name", desk.session.workspace.free_name())
        self._seed = gui.add_number("Seed", initial_value=0, min=0, max=2**31 - 1, step=1)
        self._start = gui.add_button("Generate", icon="player-play", color="green")
        self._start.on_click(desk.answer(lambda e: self._generate()))
        self._cancel = gui.add_button("Cancel", icon="player-stop", color="red", disabled=True)
        self._cancel.on_click(desk.answer(lambda e: desk.session.cancel()))
        gui.add_divider()
        gui.add_button("Save the path under this name", icon="download").on_click(desk.answer(lambda e: self._save()))
        self._saved = gui.add_dropdown("Paths", (NONE,), initial_value=NONE)
        gui.add_button("Load this path", icon="upload").on_click(desk.answer(lambda e: self._load()))

    def refresh(self) -> None:
        """Show what may be done, and which paths there are."""
        session = self._desk.session
        status = session.status
        self._start.disabled = status.phase is not Phase.IDLE or session.scene is None
        self._cancel.disabled = status.phase is not Phase.RUNNING or status.job != "generate"
        self._saved.options = tuple(session.workspace.path_names()) or (NONE,)
        if status.phase is Phase.IDLE and self._name.value in session.workspace.result_names():
            self._name.value = session.workspace.free_name()

    def _generate(self) -> None:
        session = self._desk.session
        if session.status.phase is Phase.IDLE and session.generate(self._name.value, int(self._seed.value)):
            self._desk.say("")

    def _save(self) -> None:
        command = self._desk.session.save(self._name.value)
        self._desk.session.on_change("status")
        self._desk.say(f"Saved. The same without this page: {command}")

    def _load(self) -> None:
        if self._saved.value == NONE:
            raise UserError("no path was saved yet")
        self._desk.session.load(self._saved.value)
        self._desk.say(f"Loaded {self._saved.value}.")


class ResultPanel:
    """Guide and view of one frame side by side; while a run is under way, of the frames as they come."""

    def __init__(self, desk: Desk) -> None:
        self._desk, gui = desk, desk.gui
        self._frame = 0
        self._seen: set[int] = set()
        panel = gui.add_panel()
        with panel.add_tab("Result"):
            self._choice = gui.add_dropdown("Result", (NONE,), initial_value=NONE)
            self._choice.on_update(desk.answer(lambda e: self._choose()))
            self._pictures = gui.add_image(side_by_side(None, None, desk.session.size), label="Guide | view")
            self._time = gui.add_slider("Frame", min=0, max=1, step=1, initial_value=0)
            self._time.on_update(desk.answer(lambda e: self._scrub()))
        panel.float(x=12, y=-12, width=560)

    def refresh(self) -> None:
        """Show the result as far as it is there."""
        session = self._desk.session
        shown = session.shown
        opened = [session.opened.name] if session.opened else []
        made = [shown.name] if shown else []
        self._choice.options = tuple(dict.fromkeys([*opened, *session.workspace.result_names(), *made])) or (NONE,)
        self._choice.value = shown.name if shown else NONE
        if shown is None:
            self._pictures.image = side_by_side(None, None, session.size)
            return
        done = set(shown.done)
        following = session.status.job == "generate" and session.status.phase is Phase.RUNNING
        if following and done - self._seen:
            self._frame = sorted(done - self._seen)[len(done - self._seen) // 2]
        self._seen = done
        self._frame = max(0, min(self._frame, len(shown.cameras) - 1))
        self._time.max = max(1, len(shown.cameras) - 1)
        self._time.value = self._frame
        guide = None if shown.guide is None else shown.guide[self._frame]
        view = shown.frames[self._frame] if self._frame in done else None
        self._pictures.image = side_by_side(guide, view, shown.cameras.size)
        self._pictures.label = f"Guide | view, {len(done)} of {len(shown.cameras)} frames"

    def _choose(self) -> None:
        if self._choice.value != NONE:
            self._frame = 0
            self._desk.session.show(self._choice.value)

    def _scrub(self) -> None:
        self._frame = int(self._time.value)
        self._desk.session.on_change("frame")


class Controls:
    """All panels of a ``viser.ViserServer``.

    Args:
        server: it.
        session: what is shown and done.
        scenery: what is drawn in space.
        wanted: told the frame whose preview is wanted.
    """

    def __init__(self, server: Any, session: Session, scenery: Scenery, wanted: Callable[[int], None]) -> None:
        desk, gui = Desk(server, session, scenery), server.gui
        self._drawing = threading.Lock()
        gui.main_panel.float(x=-12, y=12, width=350)
        self._status = StatusPanel(desk)
        tabs = gui.add_tab_group()
        with tabs.add_tab("Path"):
            self.path = PathPanel(desk, wanted)
        with tabs.add_tab("Generate"):
            self._run = RunPanel(desk)
        with tabs.add_tab("Show"):
            self._switches = {kind: _switch(desk, kind, title) for kind, title in _KINDS.items()}
            self._switches["splats"] = _switch(desk, "splats", "splats")
            self._switches["splats"].visible = False
            size = gui.add_slider("Point size", min=0.2, max=5.0, step=0.1, initial_value=1.0)
            size.on_update(lambda e: scenery.point_size(size.value))
        self._result = ResultPanel(desk)

    def offer_splats(self) -> None:
        """Show the switch for splats."""
        self._switches["splats"].visible = True

    def refresh(self, what: set[str]) -> None:
        """Show the session as it is now; ``what`` names the parts that changed."""
        with self._drawing:
            if what & {"status", "scene"}:
                self._status.refresh()
                self._run.refresh()
            if what & {"path", "scene"}:
                self.path.refresh()
            if what & {"result", "frames", "frame"}:
                self._result.refresh()


def _switch(desk: Desk, kind: str, title: str) -> Any:
    box = desk.gui.add_checkbox(title, True)
    box.on_update(lambda e: desk.scenery.show(kind, box.value))
    return box
