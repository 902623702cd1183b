"""The path editor: keys, presets, speed, field of view, time line."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from fvgen.errors import UserError
from fvgen.viewer import keyframes as keys
from fvgen.viewer.desk import NONE, Desk
from fvgen.viewer.pictures import larger
from fvgen.viewer.scenery import camera_pose, wxyz_of


class PathPanel:
    """Edits the session's path; which key is selected, and where the time line stands, is the page's own.

    Args:
        desk: where it stands.
        wanted: told the frame whose preview is wanted.
    """

    def __init__(self, desk: Desk, wanted: Callable[[int], None]) -> None:
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
        self._count.on_update(answer(lambda e: self._set_count(int(self._count.value))))
        self._time = gui.add_slider("Time line", min=0, max=1, step=1, initial_value=0)
        self._time.on_update(answer(self._scrub))
        self._through = gui.add_checkbox("Look through", False)
        self._through.on_update(answer(self._scrub))
        width, height = desk.session.size
        self._empty = larger(torch.full((height, width, 3), 24, dtype=torch.uint8))
        self._preview = gui.add_image(self._empty, label="Guide at the time line", visible=False)

    def show_preview(self, picture: np.ndarray | None) -> None:
        """The guide at the time line, if there is one."""
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

    def _edit(self, change: Callable[[keys.KeyPath], keys.KeyPath]) -> None:
        self._desk.session.edit(change)
        self._desk.say("")

    def _preset(self, name: str) -> None:
        session = self._desk.session
        if session.scene is None:
            raise UserError("the scene is not there yet: wait for it")
        made = keys.preset(name, session.scene, session.size)
        self._selected = self._frame = 0
        self._edit(lambda path: made)

    def _here(self, event: Any) -> Any:
        """The camera of the browser that asks, with the panel's field of view."""
        camera = event.client.camera
        pose = camera_pose(camera.wxyz, camera.position)
        return keys.key_camera(pose, float(self._fov.value), self._desk.session.size)

    def _add(self, event: Any) -> None:
        camera = self._here(event)
        made = keys.added(self._desk.session.path, camera)
        self._selected, self._frame = len(made) - 1, made.count - 1  # before it is shown
        self._edit(lambda path: made)

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
        last = len(self._desk.session.path) - 1
        if chosen == "move here":
            camera = self._here(event)
            self._edit(lambda path: keys.changed(path, i, camera))
        elif chosen == "delete":
            self._edit(lambda path: keys.removed(path, i))
        elif (chosen == "earlier" and i > 0) or (chosen == "later" and i < last):
            other = i - 1 if chosen == "earlier" else i + 1
            self._selected = other
            self._edit(lambda path: keys.swapped(path, i, other))

    def _retime(self, frame: int) -> None:
        session = self._desk.session
        try:
            path, index = keys.retimed(session.path, self._selected, frame)
        except UserError:
            session.on_change("path")  # shows the old number again
            raise
        self._selected, self._frame = index, path.frames[index]
        self._edit(lambda before: path)

    def _set_fov(self) -> None:
        i, fov = self._selected, float(self._fov.value)
        if len(self._desk.session.path):
            self._edit(lambda path: keys.with_fov(path, fov, i))

    def _set_count(self, count: int) -> None:
        self._edit(lambda path: keys.with_count(path, count))

    def _more(self, event: Any) -> None:
        session, chosen = self._desk.session, event.target.value
        if chosen == "even speed":
            self._edit(keys.at_even_speed)
        elif chosen == "view for all":
            fov = float(self._fov.value)
            self._edit(lambda path: keys.with_fov(path, fov))
        elif chosen == "clear":
            self._edit(lambda path: keys.empty_path(session.size))
        elif len(session.path):
            _stand_at(event.client, session.path.keys[self._selected])

    def _scrub(self, event: Any) -> None:
        path = self._desk.session.path
        self._frame = max(0, min(int(self._time.value), path.count - 1))
        if len(path) > 1 and self._through.value:
            _stand_at(event.client, path.cameras()[self._frame])
        self._wanted(self._frame)


def _stand_at(client: Any, camera: Any) -> None:
    """Put one browser's camera where ``camera`` is."""
    with client.atomic():
        client.camera.wxyz = wxyz_of(camera)
        client.camera.position = camera.centers[0].numpy()
        client.camera.fov = float(np.radians(keys.fov_of(camera)))
