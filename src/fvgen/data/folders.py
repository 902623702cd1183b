"""Which clips are meant, told by the names of folders alone. Light: imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from fvgen.errors import UserError

SPLITS = ("train", "heldout")


def check_pairs(folder: Path) -> None:
    """Refuse what is no folder of training pairs.

    Raises:
        UserError: it has neither split.
    """
    if not any((folder / split).is_dir() for split in SPLITS):
        raise UserError(f"{folder} holds no training pairs: it has neither train/ nor heldout/")


def check_data(data: Sequence[str]) -> tuple[list[Path], list[int]]:
    """The folders of pairs and the seeds of procedural scenes that some names stand for, at most one of each.

    Raises:
        UserError: nothing, two folders, a folder without pairs, a seed that is no number.
    """
    folders, seeds = list[Path](), list[int]()
    for name in data:
        kind, _, seed = name.partition(":")
        if kind != "procedural":
            if not any(Path(name).glob("train/*.tar")):
                raise UserError(f"`data` {name}: no training pairs there; make some with 'fvgen prepare'")
            folders.append(Path(name))
        elif name == "procedural" or seed.isdigit():
            seeds.append(int(seed or 0))
        else:
            raise UserError(f"`data` {name}: write procedural or procedural:SEED, such as procedural:7")
    if not data or len(folders) > 1 or len(seeds) > 1:
        raise UserError("`data`: name one folder of training pairs, procedural:SEED, or both")
    return folders, seeds
