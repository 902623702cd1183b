"""``fvgen view``: the page, from start to Ctrl-C."""

import operator
import sys
import threading
from pathlib import Path

from fvgen.errors import UserError
from fvgen.reconstruction.ply import read_gaussians
from fvgen.viewer.latest import Latest
from fvgen.viewer.panels import Controls
from fvgen.viewer.pictures import larger
from fvgen.viewer.runs import Ending, Phase
from fvgen.viewer.scenery import Scenery
from fvgen.viewer.server import address_of, close_server, open_server
from fvgen.viewer.session import Session


class Page:
    """A running page of one session.

    Args:
        session: what it shows.
        host, port: where it listens; port 0 takes a free one.
        splats: a PLY of Gaussians to show.

    Raises:
        UserError: see `fvgen.viewer.server.open_server`; or a file of Gaussians that is none.
    """

    def __init__(self, session: Session, host: str, port: int, splats: Path | None = None) -> None:
        gaussians = None if splats is None else read_gaussians(splats)
        self.session = session
        self.server = open_server(host, port, "fvgen")
        self.address = address_of(self.server, host)
        self.server.gui.configure_theme(show_share_button=False, show_logo=False, brand_color=(235, 140, 20))
        self.scenery = Scenery(self.server)
        self._previews: Latest[int] = Latest(self._preview)
        self.controls = Controls(self.server, session, self.scenery, self._previews.request)
        self._painter: Latest[set[str]] = Latest(self._paint, operator.or_)
        if session.opened is not None:
            opened = session.opened
            self.scenery.place(opened.photo_cameras, opened.positions)
            self.scenery.photos(opened.photo_cameras, session.photos.images)
            self.scenery.points(opened.positions, opened.colors)
        if gaussians is not None:
            self.scenery.splats(gaussians)
            self.controls.offer_splats()
        session.on_change = lambda what: self._painter.request({what})
        self._painter.request({"status", "path", "result"})

    def close(self) -> None:
        """End the page, and the run; what was half done is gone."""
        if not self.session.close(2.0):
            print("fvgen: ending what runs ...", file=sys.stderr)
            self.session.close()
        self._painter.close()
        self._previews.close()
        close_server(self.server)

    def _paint(self, what: set[str]) -> None:
        scene = self.session.scene
        if "scene" in what and scene is not None:
            seen = scene.points.measured
            if self.session.opened is None:
                self.scenery.place(scene.cameras, scene.points.positions[seen])
            self.scenery.photos(scene.cameras, scene.photos.images)
            self.scenery.points(scene.points.positions[seen], scene.points.colors[seen])
        if what & {"result", "frames"}:
            self.scenery.frames(self.session.shown)
        self.controls.refresh(what)

    def _preview(self, frame: int) -> None:
        path = self.session.path
        if len(path) == 0:
            self.controls.path.show_preview(None)
            self.scenery.here(None)
            return
        camera = path.cameras()[min(frame, path.count - 1)] if len(path) > 1 else path.keys[:1]
        try:
            picture = self.session.preview(min(frame, path.count - 1))
        except UserError:  # no scene yet: it is asked for again when there is one
            return
        self.controls.path.show_preview(larger(picture))
        self.scenery.here(camera)


def serve(page: Page) -> None:
    """Build the scene, say where the page is, and stay until Ctrl-C."""
    session = page.session
    try:
        session.build()
        print(f"fvgen view: {page.address} (Ctrl-C ends it)", flush=True)
        session.runner.wait()
        status = session.status
        if status.phase is Phase.IDLE and status.job == "scene" and status.ending is Ending.FAILED:
            print(f"fvgen: error: {status.doing}", file=sys.stderr, flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.close()
