"""The page of ``fvgen view``: its server, panels and scenery for each visit, pictures made in the background."""

import contextlib
import errno
import io
import ipaddress
import logging
import operator
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from fvgen.errors import UserError
from fvgen.packages import require
from fvgen.reconstruction.gaussians import read_gaussians
from fvgen.viewer.panels import Controls
from fvgen.viewer.runs import Ending, Phase
from fvgen.viewer.scenery import Scenery, larger
from fvgen.viewer.session import Session

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Latest(Generic[T]):
    """Calls ``work``, never twice at once, with what was asked for since it last began.

    Args:
        work: in a thread of its own.
        merge: what becomes of a request that was not begun when the next one comes: ``(old, new)`` to both in one; by
            default the old one is dropped.
    """

    def __init__(self, work: Callable[[T], None], merge: Callable[[T, T], T] = lambda old, new: new) -> None:
        self._work, self._merge = work, merge
        self._requests: SimpleQueue[T | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fvgen page", daemon=True)
        self._thread.start()

    def request(self, what: T) -> None:
        """Ask for ``what``. Returns at once."""
        self._requests.put(what)

    def close(self) -> None:
        """End the thread after the request it works on."""
        self._requests.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        while (what := self._requests.get()) is not None:
            while not self._requests.empty():
                newer = self._requests.get()
                if newer is None:
                    return
                what = self._merge(what, newer)
            try:
                self._work(what)
            except Exception:  # what fails must not end all that comes later
                traceback.print_exc()


def check_port(host: str, port: int) -> None:
    """Refuse an address at which no server can listen.

    Raises:
        UserError: the port is taken or not allowed, or the host is no address of this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"`port` {port}: choose 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if sys.platform != "win32":  # there it would allow two servers
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except (socket.gaierror, UnicodeError):
        raise UserError(f"`host` {host}: no such address") from None
    except PermissionError:
        raise UserError(f"`port` {port}: not allowed here; choose one above 1023") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} on {host} is taken: end the other server or choose another `port`") from None
        raise UserError(f"`host` {host}: cannot be listened on ({error.strerror})") from None


def open_server(host: str, port: int, label: str) -> Any:
    """A running ``viser.ViserServer`` at exactly this address.

    It opens no public tunnel, and where it listens on this machine alone, pages of other sites are turned away
    (a browser lets any page on the web open a socket to 127.0.0.1).

    Args:
        host, port: where to listen; port 0 takes a free one.
        label: title of the panel.

    Raises:
        UserError: no viser, or see `check_port`.
    """
    require("viser", "fvgen view")
    check_port(host, port)
    import viser

    class Server(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> None:
            """No page may put this server on the internet."""

    with contextlib.redirect_stdout(io.StringIO()):  # its banner; ours is one line
        server = Server(host=host, port=port, label=label, verbose=False)
    if port and server.get_port() != port:  # taken since the check: it went on to the next
        close_server(server)
        raise UserError(f"port {port} on {host} is taken: end the other server or choose another `port`")
    sockets: Any = server._websock_server

    async def turn_strangers_away(connection: Any) -> None:
        """Close a socket that a page of another site opened, before it can send anything that is heard."""
        opened = sockets._live_connections.get(connection.client_id)
        origin = None if opened is None else opened.request.headers.get("Origin")
        if origin is not None and not _is_local(urlsplit(origin).hostname):
            await opened.close(1008, "this page is for this machine alone")

    if _is_local(host):
        sockets.on_client_connect(turn_strangers_away)
    return server


def close_server(server: Any) -> None:
    """End a server, silently."""
    with contextlib.redirect_stdout(io.StringIO()):
        server.stop()


def _is_local(host: str | None) -> bool:
    """Whether a host name means this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class Page:
    """A running page of one session.

    Args:
        session: what it shows.
        host, port: where it listens; port 0 takes a free one.
        splats: a PLY of Gaussians to show.

    Attributes:
        address: what to type into a browser on this machine.

    Raises:
        UserError: see `fvgen.viewer.app.open_server`; or a file of Gaussians that is none.
    """

    def __init__(self, session: Session, host: str, port: int, splats: Path | None = None) -> None:
        gaussians = None if splats is None else read_gaussians(splats)
        self.session = session
        self.server = open_server(host, port, "fvgen")
        shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.server.get_port()}"
        self.server.gui.configure_theme(show_share_button=False, show_logo=False, brand_color=(235, 140, 20))
        self.scenery = Scenery(self.server)
        self._previews: Latest[int] = Latest(self._preview)
        self.controls = Controls(self.server, session, self.scenery, self._previews.request)
        self._painter: Latest[set[str]] = Latest(self._paint, operator.or_)
        if (opened := session.opened) is not None:
            self.scenery.place(opened.photo_cameras, opened.positions)
            self.scenery.photos(opened.photo_cameras, session.photos.images)
            self.scenery.points(opened.positions, opened.colors)
        else:
            self.scenery.photos_waiting(session.photos.images)
        if gaussians is not None:
            self.scenery.splats(gaussians)
            self.controls.offer_splats()
        session.on_change = lambda what: self._painter.request({what})
        self._painter.request({"status", "path", "result"})

    def close(self) -> None:
        """End the page, and the run; what was half done is gone."""
        if not self.session.close(2.0):
            _log.info("ending what runs ...")
            self.session.close()
        self.controls.close()
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
        frame = min(frame, path.count - 1)
        camera = path.cameras()[frame] if len(path) > 1 else path.keys[:1]
        self.scenery.here(camera)  # the camera first: pictures may come more slowly than a path is played
        try:
            picture = self.session.preview(frame)
        except UserError:  # no scene yet: it is asked for again when there is one
            return
        self.controls.path.show_preview(larger(picture))


def serve(page: Page, say: Callable[[str], object]) -> None:
    """Build the scene, ``say`` where the page is, and stay until Ctrl-C."""
    session = page.session
    try:
        session.build()
        say(f"fvgen view: {page.address} (Ctrl-C ends it)")
        session.runner.wait()
        status = session.status
        if status.phase is Phase.IDLE and status.job == "scene" and status.ending is Ending.FAILED:
            _log.error("%s", status.doing)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.close()
