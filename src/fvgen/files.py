"""Files that must be there, and files that are written whole or not at all."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fvgen.errors import UserError

SCENE = "scene.safetensors"
"""Of an output folder the file that keeps the scene: see `fvgen.scene.store`."""


def must_exist(*paths: str | Path | None) -> None:
    """Refuse to go on where a file or folder that will be read is not there; ``None`` is none.

    Raises:
        UserError: naming the first.
    """
    for path in paths:
        if path is not None and not Path(path).expanduser().exists():
            raise UserError(f"{path}: no such file or folder")


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file's place for the time of a ``with``: it takes the name ``path`` once the block ends well, else it goes."""
    partial = path.parent / f".{path.name}.{secrets.token_hex(6)}.partial"
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that takes the name ``path`` only once all of it is on the disk."""
    with whole_file(path) as partial, partial.open("xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def clear_partials(path: Path) -> None:
    """Remove what killed writers of ``path`` left."""
    for left in path.parent.glob(f".{path.name}.*.partial"):
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any, finite: bool = True) -> None:
    """Write a JSON file whole or not at all, and its folder. Numbers must be ``finite``, unless that is waived."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=not finite) + "\n")
