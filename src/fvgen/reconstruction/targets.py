"""Whether scenes of Gaussians and flights can be written where they are wanted. Light: imports no torch."""

import os
from collections.abc import Iterable
from pathlib import Path

from fvgen.errors import UserError
from fvgen.files import check_file, check_folder
from fvgen.outputs import prepare_output

SUFFIXES = (".ply", ".spz", ".glb", ".gltf")
"""Of the files of Gaussians that are written here."""

BESIDE = (".mp4", ".svg", ".json")
"""Of what comes beside a scene."""

_LONGEST = 200  # bytes of a name: others are made of it


def check_suffix(output: Path) -> None:
    """Check that there is a writer.

    Raises:
        UserError: there is none for this suffix.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"`output` {output}: name a file that ends in {', '.join(SUFFIXES)}")


def check_scene(output: str | Path, overwrite: bool) -> Path:
    """Say at once whether a scene and what comes beside it can be written there.

    Raises:
        UserError: a suffix that nothing here writes, a file that is there already, or a folder that refuses.
    """
    output = Path(output)
    check_suffix(output)
    if len(os.fsencode(output.name)) > _LONGEST:
        raise UserError(f"`output` {output}: a name too long for a file")
    for file in (output, *(output.with_suffix(suffix) for suffix in BESIDE)):
        check_file(file, overwrite)
    return output


def check_flight(output: Path, overwrite: bool, inputs: Iterable[str | Path] = ()) -> bool:
    """Say at once whether a flight can be written there, and whether it is a video; else it is a folder.

    Raises:
        UserError: another suffix, what is there already, a folder that refuses or that holds one of the ``inputs``.
    """
    if output.suffix.lower() == ".mp4":
        check_file(output, overwrite)
        return True
    if output.suffix and not output.is_dir():
        raise UserError(f"`output` {output}: name a video that ends in .mp4, or a folder")
    prepare_output(output, overwrite, inputs)
    check_folder(output, f"`output` {output}")
    return False
