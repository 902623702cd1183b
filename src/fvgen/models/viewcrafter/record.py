"""What a conversion leaves of the checkpoint. Light: imports no torch."""

from pathlib import Path

from fvgen.errors import UserError

RECORD = "conversion.json"


def check_converted(folder: Path) -> None:
    """Refuse what no conversion made.

    Raises:
        UserError: it has no record of a checkpoint.
    """
    if not (folder / RECORD).is_file():
        raise UserError(f"{folder} was not converted from a ViewCrafter checkpoint: it has no {RECORD}")
