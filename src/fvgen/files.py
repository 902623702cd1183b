"""Files that are written whole or not at all."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that takes the name ``path`` only once all of it is on the disk."""
    partial = path.parent / f".{path.name}.{secrets.token_hex(6)}.partial"
    try:
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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
