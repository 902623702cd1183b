"""The panels of the page: drawing a path, generating along it, what is shown, results."""

import threading
import time
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import numpy as np
import torch

from fvgen.errors import UserError
from fvgen.pipeline import Size
from fvgen.viewer import keyframes as keys
from fvgen.viewer.runs import Ending, Phase
from fvgen.viewer.scenery import Scenery, larger, measured_shown, side_by_side
from fvgen.viewer.session import Session

NONE = "(none)"

_KINDS = {"photos": "photographs", "points": "points", "path": "path", "frames": "generated frames", "splats": "splats"}

_JOBS = {"scene": "Building the scene", "generate": "Generating"}

_STEPS = "of the denoising; 0: what the model was made for"

_OPACITY = "how opaque the pictures in frusta are; at 0 there are none, and nothing hides the scene"

_BLUE, _ORANGE, _RED, _GREEN = "#1971c2", "#e8590c", "#c92a2a", "#2f9e44"

_PICTURES = ("guide and view", "view", "coverage")

_WIDTHS = {"small": 560, "large": 860}  # of the result's panel, in the browser's pixels

_ENDINGS = {Ending.FAILED: ("Failed", _RED), Ending.CANCELLED: ("Cancelled", _ORANGE)}


class PanelContext:
    """One page's session and scenery, and the lines that say what the runner does and what became of a click."""

    def __init__(self, server: Any, session: Session, scenery: Scenery) -> None:
        self.gui, self.session, self.scenery = server.gui, session, scenery
        self._line = self.gui.add_html("")
        self._progress = self.gui.add_progress_bar(0.0, visible=False)
        self._message = self.gui.add_html("")

    def refresh(self) -> None:
        """Show what the runner does now."""
        status = self.session.status
        title, color = _ENDINGS.get(status.ending, ("Ready", _GREEN))
        if status.phase is not Phase.IDLE:
            running = status.phase is Phase.RUNNING
            title, color = (_JOBS[status.job], _BLUE) if running else ("Cancelling", _ORANGE)
        doing = f"{status.doing} ({status.done} of {status.total})" if status.total else status.doing
        doing = "" if doing == title.lower() else doing
        self._line.content = (
            f'<div id="fvgen-status" style="padding:2px 12px 4px;font-size:13px"><b style="color:{color}">{title}</b>'
            f'<span style="overflow-wrap:anywhere"> {escape(doing)}</span></div>'
        )
        self._progress.visible = status.phase is not Phase.IDLE
        self._progress.value = round(100 * status.share, 1)

    def say(self, text: str, bad: bool = False) -> None:
        """Say one line, until the next one, in red if it is ``bad``."""
        style = f"padding:0 12px 4px;font-size:12.5px;color:{_RED if bad else '#495057'};overflow-wrap:anywhere"
        self._message.content = f'<div id="fvgen-message" style="{style}">{escape(text)}</div>'

    def answer(self, action: Callable[[Any], Any]) -> Callable[[Any], None]:
        """A callback that does ``action`` for a visitor's clicks; their mistakes become a line on the page.

        Nothing is done for what the program itself set, which has no client.
        """

        def callback(event: Any) -> None:
            if event.client is None:
                return
            try:
                action(event)
            except UserError as error:
                self.say(str(error), bad=True)

        return callback


class Player:
    """Plays frames in their time, for everybody: once, or again and again.

    Frames that are not shown in time are skipped. What is done elsewhere on the page goes on meanwhile.

    Args:
        desk: of the page.
        stand: the frame that is shown now, and how many there are.
        show: show a frame, to the visitor who asked for it.
    """

    def __init__(
        self, desk: PanelContext, stand: Callable[[], tuple[int, int]], show: Callable[[int, Any], None]
    ) -> None:
        self._rate, self._stand, self._show = desk.session.options.fps, stand, show
        buttons = desk.gui.add_button_group("   ", ("play", "loop", "stop"))
        buttons.on_click(desk.answer(lambda e: self._press(buttons.value, e.client)))
        self._end = threading.Event()

    def stop(self) -> None:
        """Stay at the frame that is shown."""
        self._end.set()

    def _press(self, button: str, client: Any) -> None:
        self.stop()
        if button == "stop":
            return
        first, count = self._stand()
        if count < 2:
            raise UserError("there is nothing to play yet")
        self._end = end = threading.Event()
        began = time.monotonic() - (first / self._rate if first < count - 1 else 0.0)
        todo = (end, began, button == "loop", client)
        threading.Thread(target=self._run, args=todo, name="fvgen player", daemon=True).start()

    def _run(self, end: threading.Event, began: float, loop: bool, client: Any) -> None:
        while not end.wait(1 / self._rate):
            frame, count = int((time.monotonic() - began) * self._rate), self._stand()[1]
            last = frame >= count - 1 and not loop
            if count:
                self._show(count - 1 if last else frame % count, client)
            if last or not count:
                end.set()


class PathPanel:
    """Edits the session's path; which key is selected, and where the time line stands, is the page's own.

    ``wanted`` is told the frame whose preview is wanted.
    """

    def __init__(self, desk: PanelContext, wanted: Callable[[int], None]) -> None:
        self._desk, self._wanted = desk, wanted
        self._selected = self._frame = 0
        gui, answer = desk.gui, desk.answer
        preset = gui.add_button_group("Start from", keys.PRESETS)
        preset.on_click(answer(lambda e: self._preset(preset.value)))
        gui.add_button("Add key at this view", icon="camera-plus", color="orange").on_click(answer(self._add))
        self._key = gui.add_dropdown("Key", (NONE,), initial_value=NONE)
        self._key.on_update(answer(lambda e: self._select()))
        gui.add_button_group("", ("move here", "earlier", "later", "delete")).on_click(answer(self._change))
        self._at = gui.add_number("At frame", initial_value=0, min=0, max=keys.MOST_FRAMES - 1, step=1)
        self._at.on_update(answer(lambda e: self._retime(int(self._at.value))))
        self._fov = gui.add_slider("Field of view", min=10.0, max=100.0, step=0.5, initial_value=40.0)
        self._fov.on_update(answer(lambda e: self._set_fov()))
        gui.add_button_group(" ", ("go to key", "view for all", "even speed", "clear")).on_click(answer(self._more))
        self._count = gui.add_number("Frames", initial_value=2, min=2, max=keys.MOST_FRAMES, step=1)
        self._count.on_update(answer(lambda e: self._edit(keys.with_count, int(self._count.value))))
        self._time = gui.add_slider("Time line", min=0, max=1, step=1, initial_value=0)
        self._time.on_update(answer(self._scrub))
        self._through = gui.add_checkbox("Look through", False)
        self._through.on_update(answer(lambda e: self._show(self._frame, e.client)))
        self.player = Player(desk, lambda: (self._frame, desk.session.path.count), self._show)
        width, height = desk.session.size
        self._empty = larger(torch.full((height, width, 3), 24, dtype=torch.uint8))
        self._preview = gui.add_image(self._empty, label="Guide at the time line", visible=False)

    def show_preview(self, picture: np.ndarray | None) -> None:
        """Show the guide at the time line, ``[H, W, 3]`` uint8, or that there is none."""
        self._preview.visible = picture is not None
        self._preview.image = self._empty if picture is None else picture

    def refresh(self) -> None:
        """Show the session's path as it is now."""
        path = self._desk.session.path
        self._selected = max(0, min(self._selected, len(path) - 1))
        self._frame = max(0, min(self._frame, path.count - 1))
        names = tuple(f"{i + 1} at frame {frame}" for i, frame in enumerate(path.frames))
        self._key.options = names or (NONE,)
        self._key.value = names[self._selected] if names else NONE
        if len(path):
            self._at.value = path.frames[self._selected]
            self._fov.value = max(10.0, min(100.0, round(2 * keys.fov_of(path.keys[self._selected])) / 2))
            self._count.value = max(2, path.count)
        self._time.max = max(1, path.count - 1)
        self._time.value = self._frame
        for i, node in enumerate(self._desk.scenery.path(path, self._selected if len(path) else None)):
            node.on_click(self._desk.answer(partial(self._pick, i)))
        self._wanted(self._frame)

    def _edit(self, change: Callable[..., keys.KeyPath], *values: Any) -> None:
        """Change the path by a function of it and of some values."""
        self._desk.session.edit(lambda path: change(path, *values))
        self._desk.say("")

    def _replace(self, path: keys.KeyPath, selected: int, frame: int) -> None:
        self._selected, self._frame = selected, frame  # before the path is shown
        self._edit(lambda before: path)

    def _preset(self, name: str) -> None:
        session = self._desk.session
        self._replace(keys.preset(name, session.ready(), session.size), 0, 0)

    def _here(self, event: Any) -> Any:
        """The camera of the browser that asks, with the panel's field of view."""
        pose = self._desk.scenery.pose_of(event.client.camera)
        return keys.key_camera(pose, float(self._fov.value), self._desk.session.size)

    def _add(self, event: Any) -> None:
        path = keys.added(self._desk.session.path, self._here(event))
        self._replace(path, len(path) - 1, path.count - 1)

    def _pick(self, index: int, event: Any) -> None:
        frames = self._desk.session.path.frames
        if 0 <= index < len(frames):
            self._selected, self._frame = index, frames[index]
        self._desk.session.on_change("path")

    def _select(self) -> None:
        if self._key.value in self._key.options and self._key.value != NONE:
            self._pick(self._key.options.index(self._key.value), None)

    def _change(self, event: Any) -> None:
        i, chosen = self._selected, event.target.value
        if chosen == "move here":
            self._edit(keys.changed, i, self._here(event))
        elif chosen == "delete":
            self._edit(keys.removed, i)
        else:
            other = i - 1 if chosen == "earlier" else i + 1
            if 0 <= other < len(self._desk.session.path):
                self._selected = other
                self._edit(keys.swapped, i, other)

    def _retime(self, frame: int) -> None:
        session = self._desk.session
        try:
            path, index = keys.retimed(session.path, self._selected, frame)
        except UserError:
            session.on_change("path")  # shows the old number again
            raise
        self._replace(path, index, path.frames[index])

    def _set_fov(self) -> None:
        if len(self._desk.session.path):
            self._edit(keys.with_fov, float(self._fov.value), self._selected)

    def _more(self, event: Any) -> None:
        session, chosen = self._desk.session, event.target.value
        if chosen == "even speed":
            self._edit(keys.at_even_speed)
        elif chosen == "view for all":
            self._edit(keys.with_fov, float(self._fov.value))
        elif chosen == "clear":
            self._confirm_clear(event.client)
        elif len(session.path):
            self._stand_at(event.client, session.path.keys[self._selected])

    def _confirm_clear(self, client: Any) -> None:
        """Ask the visitor who wants it, and nobody else, before all keys go."""
        session = self._desk.session
        if not len(session.path):
            return
        dialog = client.gui.add_modal("Clear the path?")

        def clear(event: Any) -> None:
            dialog.close()
            self._edit(lambda path: keys.empty_path(session.size))

        with dialog:
            client.gui.add_html(f'<p style="margin:0 12px">Its {len(session.path)} keys cannot be had back.</p>')
            client.gui.add_button("Clear", icon="trash", color="red").on_click(self._desk.answer(clear))
            client.gui.add_button("Keep").on_click(lambda e: dialog.close())

    def _scrub(self, event: Any) -> None:
        self.player.stop()
        self._show(int(self._time.value), event.client)

    def _show(self, frame: int, client: Any) -> None:
        path = self._desk.session.path
        self._frame = max(0, min(frame, path.count - 1))
        self._time.value = self._frame
        if len(path) > 1 and self._through.value:
            self._stand_at(client, path.cameras()[self._frame])
        self._wanted(self._frame)

    def _stand_at(self, client: Any, camera: Any) -> None:
        self._desk.scenery.stand_at(client, camera, keys.fov_of(camera))


class RunPanel:
    """Choose how, generate and cancel; save and load paths."""

    def __init__(self, desk: PanelContext) -> None:
        self._desk, gui = desk, desk.gui
        session = desk.session
        self._name = gui.add_text("Name", session.workspace.free_name())
        self._model = gui.add_dropdown("Model", tuple(session.models), initial_value=session.pipeline.name)
        self._size = gui.add_vector2("Size", session.size, min=(16, 16), step=2, hint="width and height of the frames")
        sizes = gui.add_button_group(" ", ("as the photos", "as the model"))
        sizes.on_click(desk.answer(lambda e: self._fill_size(sizes.value)))
        self._steps = gui.add_number("Steps", initial_value=session.options.steps or 0, min=0, step=1, hint=_STEPS)
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

    def _fill_size(self, kind: str) -> None:
        """Put in the size that the photos, or the chosen model's own pictures, have."""
        session = self._desk.session
        self._choose(None if kind == "as the photos" else "model")
        self._size.value = session.size

    def _choose(self, size: Size) -> None:
        self._desk.session.choose(self._model.value, size, int(self._steps.value) or None)

    def _take(self) -> None:
        """Take model, size and steps as they stand on the page."""
        width, height = (int(side) for side in self._size.value)
        session = self._desk.session
        self._choose(session.options.size if (width, height) == session.size else (width, height))

    def _generate(self) -> None:
        session = self._desk.session
        if session.status.phase is not Phase.IDLE:
            return
        self._take()
        if session.generate(self._name.value, int(self._seed.value)):
            self._desk.say("")

    def _save(self) -> None:
        self._take()
        command = self._desk.session.save(self._name.value)
        self._desk.session.on_change("status")
        self._desk.say(f"Saved. The same without this page: {command}")

    def _load(self) -> None:
        if self._saved.value == NONE:
            raise UserError("no path was saved yet")
        self._desk.session.load(self._saved.value)
        self._desk.say(f"Loaded {self._saved.value}.")


class ResultPanel:
    """Guide and view of one frame, or what of it is measured; while a run is under way, of the frames as they come."""

    def __init__(self, desk: PanelContext) -> None:
        self._desk, gui = desk, desk.gui
        self._frame = 0
        self._seen: set[int] = set()
        self._panel = panel = gui.add_panel(visible=desk.session.shown is not None)
        with panel.add_tab("Result"):
            self._choice = gui.add_dropdown("Result", (NONE,), initial_value=NONE)
            self._choice.on_update(desk.answer(lambda e: self._choose()))
            self._kind = gui.add_dropdown("Picture", _PICTURES, initial_value=_PICTURES[0], hint="C: coverage")
            self._kind.on_update(desk.answer(lambda e: self._redraw()))
            self._pictures = gui.add_image(side_by_side(None, None, desk.session.size), label="Guide | view")
            self._time = gui.add_slider("Frame", min=0, max=1, step=1, initial_value=0)
            self._time.on_update(desk.answer(lambda e: self._scrub()))
            self.player = Player(desk, self._stand, lambda frame, client: self._show(frame))
            more = gui.add_button_group("    ", ("small", "large", "download the video"))
            more.on_click(desk.answer(lambda e: self._more(more.value, e.client)))
        self._resize(_WIDTHS["small"])
        command = gui.add_command("Coverage of the result", hotkey="C", description="what the photos tell of a frame")
        command.on_trigger(desk.answer(lambda e: self._switch_coverage()))

    def refresh(self) -> None:
        """Show the result as far as it is there."""
        session = self._desk.session
        shown = session.shown
        opened = [session.opened.name] if session.opened else []
        made = [shown.name] if shown else []
        self._choice.options = tuple(dict.fromkeys([*opened, *session.workspace.result_names(), *made])) or (NONE,)
        self._choice.value = shown.name if shown else NONE
        self._panel.visible = shown is not None
        if shown is None:
            self._pictures.image, self._pictures.label = side_by_side(None, None, session.size), "Guide | view"
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
        title = {"guide and view": "Guide | view", "view": "View"}.get(self._kind.value, "Red: made up")
        self._pictures.label = f"{title}, {len(done)} of {len(shown.cameras)} frames"
        if self._kind.value == "guide and view":
            self._pictures.image = side_by_side(guide, view, shown.cameras.size, self._width)
            return
        if view is None:
            view = torch.full_like(shown.frames[self._frame], 24)
        elif self._kind.value == "coverage":
            view = measured_shown(view, shown.coverage[self._frame])
        self._pictures.image = larger(view, self._width)

    def _resize(self, width: int) -> None:
        self._width = width
        self._panel.float(x=12, y=-12, width=width)

    def _choose(self) -> None:
        if self._choice.value != NONE:
            self._frame = 0
            self._desk.session.show(self._choice.value)

    def _stand(self) -> tuple[int, int]:
        shown = self._desk.session.shown
        return self._frame, 0 if shown is None else len(shown.cameras)

    def _scrub(self) -> None:
        self.player.stop()
        self._show(int(self._time.value))

    def _show(self, frame: int) -> None:
        self._frame = frame
        self._redraw()

    def _redraw(self) -> None:
        self._desk.session.on_change("frame")

    def _switch_coverage(self) -> None:
        self._kind.value = "guide and view" if self._kind.value == "coverage" else "coverage"
        self._redraw()

    def _more(self, button: str, client: Any) -> None:
        if button in _WIDTHS:
            self._resize(_WIDTHS[button])
            self._redraw()
            return
        shown = self._desk.session.shown
        if shown is None or shown.video is None:
            raise UserError("there is no video yet: it is there once all frames are")
        try:
            content = shown.video.read_bytes()
        except OSError:
            raise UserError(f"{shown.video} cannot be read any more") from None
        client.send_file_download(f"{shown.name}.mp4", content, save_immediately=True)


class Controls:
    """All panels of a ``viser.ViserServer``; ``wanted`` is told the frame whose preview is wanted."""

    def __init__(self, server: Any, session: Session, scenery: Scenery, wanted: Callable[[int], None]) -> None:
        gui, self._drawing = server.gui, threading.Lock()
        gui.main_panel.float(x=-12, y=12, width=350)
        self._status = desk = PanelContext(server, session, scenery)
        tabs = gui.add_tab_group()
        with tabs.add_tab("Path"):
            self.path = PathPanel(desk, wanted)
        with tabs.add_tab("Generate"):
            self._run = RunPanel(desk)
        with tabs.add_tab("Show"):
            switches = {kind: gui.add_checkbox(title, True) for kind, title in _KINDS.items()}
            for kind, switch in switches.items():
                switch.on_update(lambda e, kind=kind: scenery.show(kind, e.target.value))
            self._splats = switches["splats"]
            self._splats.visible = False
            size = gui.add_slider("Point size", min=0.2, max=5.0, step=0.1, initial_value=1.0)
            size.on_update(lambda e: scenery.point_size(size.value))
            frusta = gui.add_slider("Frustum size", min=0.1, max=4.0, step=0.1, initial_value=1.0)
            frusta.on_update(lambda e: scenery.frustum_size(frusta.value))
            opacity = gui.add_slider("Pictures", min=0.0, max=1.0, step=0.05, initial_value=1.0, hint=_OPACITY)
            opacity.on_update(lambda e: scenery.opacity(opacity.value))
        self._result = ResultPanel(desk)

    def offer_splats(self) -> None:
        """Show the switch for splats."""
        self._splats.visible = True

    def close(self) -> None:
        """End what plays."""
        self.path.player.stop()
        self._result.player.stop()

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
