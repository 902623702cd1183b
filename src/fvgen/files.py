"""Files that must be there, files that are written whole or not at all, and what keeps them from it, in one line."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from fvgen.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
_ROOM = 1 << 16  # bytes: a disk with less is full


SCENE = "scene.safetensors"
"""Of an output folder the file that keeps the scene: see `fvgen.scene.store`."""


def must_exist(*paths: str | Path | None) -> None:
    """Refuse to go on where a file or folder that will be read is not there; ``None`` is none.

    Raises:
        UserError: naming the first.
    """
    for path in paths:
        if path is not None and not (named := Path(path).expanduser()).exists():
            raise UserError(f"{path}: {absent(named) or 'no such file or folder'}")


def absent(path: Path) -> str:
    """Why a file is not there, where its path tells: a link that leads nowhere, or a file in a folder's place.

    The latter is what copies and archives may make of a link to a folder. Empty where nothing of that kind is seen.
    """
    if path.is_symlink():
        return f"a link to {os.readlink(path)}, which is not there"
    blocked = next((parent for parent in path.parents if parent.is_file()), None)
    return f"{blocked} is a file, not a folder (it may have been a link)" if blocked else ""


def check_folder(folder: Path, called: str) -> None:
    """Say at once whether a folder, which need not be there, can be written into. It is tried, and nothing is left.

    Raises:
        UserError: it cannot; ``called`` is what the line says, such as ``output folder out``.
    """
    try:
        above = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=above):
            pass
    except OSError as error:
        reason = why_not_written(error, folder) or f"cannot be written ({os.strerror(error.errno or 0).lower()})"
        raise UserError(f"{called}: {reason}; choose another place") from None


def check_file(path: Path, overwrite: bool = False, called: str = "`output`") -> None:
    """Say at once whether an output file can be written. Its folder need not be there.

    Raises:
        UserError: it is a folder, is there already and not to be replaced, or its folder refuses.
    """
    if path.is_dir():
        raise UserError(f"{called} {path}: a folder; name a file")
    if path.exists() and not overwrite:
        raise UserError(f"{called} {path} is there already; choose another, or add `overwrite`")
    check_folder(path.parent, f"{called} {path}")


@contextlib.contextmanager
def output_file(path: Path, called: str = "`output`") -> Iterator[Path]:
    """A file's place as `whole_file` gives it, its folder made, and what keeps it from being written as one line.

    Raises:
        UserError: the disk is full, a limit is reached, or the folder refuses.
    """
    with writing(path.parent, f"{called} {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            yield unfinished


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file's place for the time of a ``with``: it takes the name ``path`` once the block ends well, else it goes."""
    partial = path.parent / f".{path.name}.{secrets.token_hex(6)}.partial"
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder that takes the name ``path`` once the block ends well, in place of what is there, else it goes.

    Raises:
        UserError: the disk is full, a limit is reached, or the folder refuses.
    """
    partial = path.parent / f".{path.name}.{secrets.token_hex(6)}.partial"
    old = partial.with_suffix(".old")
    try:
        with writing(path.parent, str(path)):
            partial.mkdir(parents=True)
            yield partial
            if path.exists():
                path.rename(old)
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that takes the name ``path`` only once all of it is on the disk."""
    with whole_file(path) as partial, partial.open("xb") as file:
        noting = _Noting(file)
        try:
            write(cast(BinaryIO, noting))
        except Exception:
            if noting.error is not None:  # torch.save raises something else, without the reason
                raise noting.error from None
            raise
        file.flush()
        os.fsync(file.fileno())


class _Noting:
    """A file that keeps the error of a write, for writers that swallow it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def why_not_written(error: BaseException, folder: Path | None = None) -> str:
    """What the user can mend of an error while something was written; empty where it is another kind of error.

    A full disk, or quota, is not always told by its number: some writers raise an error of their own without it. Then
    the disk of the folder is asked.

    Args:
        error: what was raised.
        folder: that was written to.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return "no space left on the disk" if number == errno.ENOSPC else "no more may be written (a quota or limit)"
    if number in _REFUSED:
        return f"cannot be written ({os.strerror(cast(int, number)).lower()})"
    if number is None and isinstance(error, Exception) and not isinstance(error, UserError) and folder is not None:
        there = next((place for place in (folder, *folder.parents) if place.exists()), None)
        if there is not None and shutil.disk_usage(there).free < _ROOM:
            return "no space left on the disk"
    return ""


@contextlib.contextmanager
def writing(folder: Path, called: str) -> Iterator[None]:
    """Errors of what is written into a folder inside this block as one line.

    Args:
        folder: files of other folders are left to others.
        called: what the line says, such as ``output folder out``.

    Raises:
        UserError: the disk is full, a limit is reached, or the folder refuses.
    """
    try:
        yield
    except Exception as error:
        named = getattr(error, "filename", None)
        # FFmpeg is given paths with "file:" before them.
        inside = not isinstance(named, str | bytes) or Path(os.fsdecode(named).removeprefix("file:")).is_relative_to(
            folder
        )
        reason = why_not_written(error, folder) if inside else ""
        if not reason:
            raise
        raise UserError(f"{called}: {reason}; free some or choose another place") from None


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


def other_content(start: bytes) -> str:
    """What a file is that stands in another's place, told from its first bytes: what to say of it, or nothing.

    A repository cloned without git-lfs holds pointers instead of large files, and a download that failed or wanted a
    login leaves a web page.
    """
    text = start[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer, not the file: git lfs pull"
    if text.startswith((b"<!doctype html", b"<html")) or (text.startswith((b"<!--", b"<?xml")) and b"<html" in text):
        return "a web page, not the file: download it again, logged in if need be"
    return ""


def genuine(path: Path) -> Path:
    """The path of a file that is about to be read, once it is known to be no stand-in, see `other_content`.

    Raises:
        UserError: it is one. Files that are not there, or cannot be opened, are left to who reads them.
    """
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if what := other_content(file.read(1024)):
            raise UserError(f"{path}: {what}")
    return path
