"""Training pairs read from shards, any sample by its place."""

from pathlib import Path
from typing import Any

from fvgen.data.pairs import Pair
from fvgen.data.samples import MEMBERS, DamagedSample, decode_sample
from fvgen.data.shards import SampleEntry, Shard, catalogue
from fvgen.data.tarball import DamagedTar, read_member


class PairShards:
    """The samples of one split of a folder of pairs.

    Args:
        folder: of pairs.
        split: ``train`` or ``heldout``.

    Attributes:
        samples: tar and place of every sample, in the order of names.
        damaged: what cannot be used and why, by ``train/SCENE.tar`` or ``train/SCENE.tar:KEY``; grows while reading.
    """

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.folder, self.split = folder, split
        self.shards, self.damaged = catalogue(folder, split)
        self.samples: list[tuple[Shard, SampleEntry]] = [(s, entry) for s in self.shards for entry in s.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> tuple[Pair, dict[str, Any]]:
        """A sample's pair and facts, read from its own bytes alone.

        Raises:
            DamagedSample: it is not what it was when it was written; :attr:`damaged` remembers that.
        """
        shard, entry = self.samples[index]
        try:
            with (self.folder / shard.name).open("rb") as file:
                members = {name: read_member(file, entry.member(name)) for name in MEMBERS}
            return decode_sample(entry.key, members)
        except (DamagedSample, DamagedTar, OSError) as error:
            self.damaged[f"{shard.name}:{entry.key}"] = str(error)
            raise DamagedSample(f"{shard.name}:{entry.key}: {error}") from None
