"""Training pairs read from shards: any sample by its place, or an endless shuffled stream that resumes exactly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fvgen.data.pairs import Pair
from fvgen.data.samples import MEMBERS, DamagedSample, decode_sample
from fvgen.data.shards import SampleEntry, Shard, catalogue
from fvgen.data.tarball import DamagedTar, read_member
from fvgen.errors import UserError

_GROUP = 1024  # samples among which a stream jumps about; as many tars as hold them are read side by side


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
        self._order: tuple[tuple[int, int], NDArray[np.int64]] | None = None

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

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """``[N]``: the samples in the order of an epoch, a function of the arguments and the tars alone.

        Tars are shuffled, then samples among the tars that together hold about a thousand, so that reading stays
        near one place of the disk.
        """
        if self._order is not None and self._order[0] == (seed, epoch):
            return self._order[1]
        rng = np.random.default_rng((seed, epoch))
        starts = np.cumsum([0, *(len(shard.samples) for shard in self.shards)])
        parts: list[NDArray[np.int64]] = []
        group: list[NDArray[np.int64]] = []
        for k in rng.permutation(len(self.shards)):
            group.append(np.arange(starts[k], starts[k + 1]))
            if sum(map(len, group)) >= _GROUP:
                parts.append(rng.permutation(np.concatenate(group)))
                group = []
        if group:
            parts.append(rng.permutation(np.concatenate(group)))
        found = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        self._order = ((seed, epoch), found)
        return found

    def stream(
        self, seed: int, start: int = 0, rank: int = 0, size: int = 1, worker: int = 0, workers: int = 1
    ) -> Iterator[tuple[int, Pair, dict[str, Any]]]:
        """Samples without end: all of them in the order of epoch 0, then of epoch 1, and so on.

        Positions count through all epochs; from ``start`` on, the first belongs to rank 0, the second to rank 1, and
        so on in turn, and of each rank's the first to worker 0, and so on. So whoever has used up the positions
        before ``start`` goes on exactly there, also with another number of processes. Damaged samples are passed over.

        Args:
            seed: of the orders.
            start: the first position.
            rank, size: of this process among the training processes.
            worker, workers: of this reader among those of the process.

        Yields:
            Position, pair and facts.

        Raises:
            UserError: no sample at all, or one whole epoch of this reader's without a sample that can be read.
        """
        if not self.samples:
            raise UserError(f"{self.folder}: no training pairs in '{self.split}'")
        step, position, failures = size * workers, start + rank + size * worker, 0
        while True:
            epoch, place = divmod(position, len(self))
            try:
                yield position, *self.read(int(self.order(seed, epoch)[place]))
                failures = 0
            except DamagedSample as error:
                failures += 1
                if failures >= len(self):
                    raise UserError(f"{self.folder}: none of the training pairs can be read ({error})") from None
            position += step
