"""The commands of ``fvgen``. A command is one line here and one dataclass with ``run()`` in its module."""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """Where a command's dataclass lives, and what it does in one line.

    The module is imported only when the command is used, so it may import what it needs; its dataclass has a
    docstring (the head of its ``--help``), a docstring under each field, and a method ``run() -> None``.
    """

    module: str
    name: str
    summary: str

    def load(self) -> type[Any]:
        """The dataclass of this command."""
        return getattr(importlib.import_module(self.module), self.name)


COMMANDS: dict[str, Command] = {
    "generate": Command("fvgen.cli.generate", "Generate", "novel views from a few photos"),
}
