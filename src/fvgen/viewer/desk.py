"""What the panels of the page share: where they stand, what they act on, and how they answer."""

from collections.abc import Callable
from html import escape
from typing import Any

from fvgen.errors import UserError
from fvgen.viewer.scenery import Scenery
from fvgen.viewer.session import Session

NONE = "(none)"


class Desk:
    """One page's session, scenery and message line.

    Args:
        server: a ``viser.ViserServer``.
        session: what is shown and done.
        scenery: what is drawn in space.
    """

    def __init__(self, server: Any, session: Session, scenery: Scenery) -> None:
        self.gui, self.session, self.scenery = server.gui, session, scenery
        self._message: Any = None

    def add_message(self) -> None:
        """Put the message line here."""
        self._message = self.gui.add_html("")

    def say(self, text: str, bad: bool = False) -> None:
        """One line, until the next one."""
        style = f"padding:0 12px 4px;font-size:12.5px;color:{'#c92a2a' if bad else '#495057'};overflow-wrap:anywhere"
        self._message.content = f'<div id="fvgen-message" style="{style}">{escape(text)}</div>'

    def answer(self, action: Callable[[Any], Any]) -> Callable[[Any], None]:
        """A callback: the user's mistakes become a line on the page. What the program itself set is not answered."""

        def callback(event: Any) -> None:
            if event.client is None:
                return
            try:
                action(event)
            except UserError as error:
                self.say(str(error), bad=True)

        return callback
