"""Plain tar files: written so that their bytes depend on their content alone, read without trusting them."""

import os
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_COMMENTS = (tarfile.XHDTYPE, tarfile.XGLTYPE)  # other tools' notes on dates and owners
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class DamagedTar(Exception):
    """A tar file, or a place in it, that is not what it should be; the message says why."""


@dataclass(frozen=True)
class Member:
    """Where the content of a file lies in a tar.

    Attributes:
        name: of the file.
        offset: of its content, in bytes from the beginning of the tar; its header is the 512 bytes before.
        size: of its content in bytes.
    """

    name: str
    offset: int
    size: int


def write_tar(file: BinaryIO, content: Iterable[tuple[str, bytes]]) -> list[Member]:
    """Write members one after another: no dates, no owners, the plain old header; then the two empty blocks."""
    members, at = [], 0
    for name, data in content:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        members.append(Member(name, at + _BLOCK, len(data)))
        at += file.write(header.tobuf(tarfile.USTAR_FORMAT))
        at += file.write(data + bytes(-len(data) % _BLOCK))
    file.write(bytes(2 * _BLOCK + -(at + 2 * _BLOCK) % tarfile.RECORDSIZE))
    return members


def scan_tar(path: Path) -> tuple[list[Member], str]:
    """The whole members of a tar in their order, and what is wrong with it (nothing: ``""``).

    Raises:
        DamagedTar: a member is a link or anything else but a file, or its name is not a plain one: with folders,
            absolute, or with ``..``. Nothing of such a tar is used.
        OSError: it cannot be read at all.
    """
    members: list[Member] = []
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while True:
            file.seek(at)
            block = file.read(_BLOCK)
            if block == bytes(_BLOCK):
                return members, ""
            if len(block) < _BLOCK:
                return members, "cut off"
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                return members, f"not a tar header at byte {at} ({error})"
            if header.size < 0 or at + _BLOCK + header.size > size:
                return members, "cut off"
            if header.type not in _COMMENTS:
                if header.type not in _FILES:
                    raise DamagedTar(f"refused: '{header.name!a}' is not a plain file")
                if not _PLAIN.fullmatch(header.name):
                    raise DamagedTar(f"refused: the name {header.name!a} could leave its folder")
                members.append(Member(header.name, at + _BLOCK, header.size))
            at += _BLOCK + -(-header.size // _BLOCK) * _BLOCK


def read_member(file: BinaryIO, member: Member) -> bytes:
    """The content of a member, once the header before it has been compared.

    Raises:
        DamagedTar: there is another member, or none.
    """
    end = member.offset + member.size
    if member.offset < _BLOCK or member.size < 0 or end > os.fstat(file.fileno()).st_size:
        raise DamagedTar(f"{member.name} cannot be at byte {member.offset}")
    file.seek(member.offset - _BLOCK)
    block = file.read(_BLOCK)
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise DamagedTar(f"{member.name} is not at byte {member.offset}") from None
    if header.type not in _FILES or (header.name, header.size) != (member.name, member.size):
        raise DamagedTar(f"{member.name} is not at byte {member.offset}")
    return file.read(member.size)
