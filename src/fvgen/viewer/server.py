"""The web server: one address and no other, for this machine's browsers unless told otherwise."""

import contextlib
import errno
import io
import ipaddress
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

from fvgen.errors import UserError

INSTALL = "pip install -c constraints.txt -e .[viewer]"


def require_viser() -> None:
    """Say at once what is missing.

    Raises:
        UserError: viser is not installed.
    """
    from importlib.util import find_spec

    if find_spec("viser") is None:
        raise UserError(f"fvgen view needs the package viser: {INSTALL}")


def check_port(host: str, port: int) -> None:
    """Whether the server can listen there.

    Raises:
        UserError: the port is taken or not allowed, or the host is no address of this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: choose 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if sys.platform != "win32":  # there it would allow two servers
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except (socket.gaierror, UnicodeError):
        raise UserError(f"--host {host}: no such address") from None
    except PermissionError:
        raise UserError(f"--port {port}: not allowed here; choose one above 1023") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} on {host} is taken: end the other server or choose another --port") from None
        raise UserError(f"--host {host}: cannot be listened on ({error.strerror})") from None


def open_server(host: str, port: int, label: str) -> Any:
    """A running ``viser.ViserServer`` at exactly this address.

    It opens no public tunnel, and where it listens on this machine alone, pages of other sites are turned away
    (a browser lets any page on the web open a socket to 127.0.0.1).

    Args:
        host, port: where to listen; port 0 takes a free one.
        label: title of the panel.

    Raises:
        UserError: see `require_viser` and `check_port`.
    """
    require_viser()
    check_port(host, port)
    import viser

    class Server(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> None:
            """No page may put this server on the internet."""

    with contextlib.redirect_stdout(io.StringIO()):  # its banner; ours is one line
        server = Server(host=host, port=port, label=label, verbose=False)
    if port and server.get_port() != port:  # taken since the check: it went on to the next
        close_server(server)
        raise UserError(f"port {port} on {host} is taken: end the other server or choose another --port")
    if is_local(host):
        _turn_strangers_away(server)
    return server


def close_server(server: Any) -> None:
    """End it, silently."""
    with contextlib.redirect_stdout(io.StringIO()):
        server.stop()


def is_local(host: str | None) -> bool:
    """Whether a host name means this machine alone."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(server: Any, host: str) -> str:
    """What to type into a browser on this machine."""
    shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.get_port()}"


def _turn_strangers_away(server: Any) -> None:
    """Close sockets that a page of another site opened, before it can send anything that is heard."""
    sockets = server._websock_server

    async def check(connection: Any) -> None:
        opened = sockets._live_connections.get(connection.client_id)
        origin = None if opened is None else opened.request.headers.get("Origin")
        if origin is not None and not is_local(urlsplit(origin).hostname):
            await opened.close(1008, "this page is for this machine alone")

    sockets.on_client_connect(check)
