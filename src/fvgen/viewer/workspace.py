"""The one folder that the page may write to, and the names it may use there."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fvgen.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def checked_name(name: object) -> str:
    """``name`` if it can be a file's and leads nowhere else.

    Raises:
        UserError: other characters than letters, digits, ``-`` and ``_``, none, or more than 64.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise UserError("a name has 1 to 64 letters, digits, - and _, and begins with a letter or digit")
    return name


@dataclass(frozen=True)
class Workspace:
    """Paths in ``paths/``, results in ``results/``, and the scene where its cameras were estimated in ``scene/``."""

    folder: Path

    def path_file(self, name: object) -> Path:
        """Where the path of this name lies or goes."""
        return self._inside("paths", f"{checked_name(name)}.json")

    def result(self, name: object) -> Path:
        """The folder of the result of this name."""
        return self._inside("results", checked_name(name))

    def scene_folders(self) -> Iterator[Path]:
        """Folders for photographs and their estimated cameras: ``scene``, ``scene-2`` and so on without end."""
        yield self._inside("scene")
        yield from (self._inside(f"scene-{n}") for n in itertools.count(2))

    def path_names(self) -> list[str]:
        """Names of the paths there are."""
        return sorted(f.stem for f in (self.folder / "paths").glob("*.json") if _NAME.fullmatch(f.stem))

    def result_names(self) -> list[str]:
        """Names of the results there are."""
        found = (self.folder / "results").glob("*/summary.json")
        return sorted(f.parent.name for f in found if _NAME.fullmatch(f.parent.name))

    def free_name(self) -> str:
        """``view-1``, or the first number that neither a result nor a path has."""
        taken = {*self.result_names(), *self.path_names()}
        return next(name for n in range(1, len(taken) + 2) if (name := f"view-{n}") not in taken)

    def _inside(self, *parts: str) -> Path:
        """A path in the workspace, links followed.

        Raises:
            UserError: a link in the workspace leads out of it.
        """
        path = self.folder.joinpath(*parts)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(f"{path} is a link out of the workspace; remove it")
        return path
