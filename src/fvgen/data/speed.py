"""How many clips per second come out of a folder of pairs."""

import itertools
import multiprocessing
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fvgen.data.latents import LatentCorpus
from fvgen.data.reader import PairShards
from fvgen.data.samples import DamagedSample
from fvgen.errors import UserError
from fvgen.models.model import VideoModel


def pairs_facts(folder: Path) -> dict[str, float]:
    """How many training pairs a folder has, the size of the first, and their frames and bytes on average.

    Raises:
        UserError: nothing to read.
    """
    entries = [entry for _, entry in PairShards(folder).samples]
    if not entries:
        raise UserError(f"{folder}: no training pairs in 'train'")
    return {
        "clips": len(entries),
        "frames": sum(entry.frames for entry in entries) / len(entries),
        "width": entries[0].width,
        "height": entries[0].height,
        "bytes": sum(size for entry in entries for _, size in entry.members.values()) / len(entries),
    }


def shard_speed(folder: Path, workers: int, seconds: float, split: str = "train") -> float:
    """Clips per second of so many processes that read and decode samples together; their start does not count.

    Each takes its share of the samples one after another, as the processes of a training do that encodes them.

    Raises:
        UserError: nothing that can be read, or a process ended early.
    """
    if not len(PairShards(folder, split)):
        raise UserError(f"{folder}: no training pairs in '{split}'")
    context = multiprocessing.get_context("spawn")
    start, counts = context.Barrier(workers), context.Queue()
    tasks = [(folder, split, k, workers, seconds, start, counts) for k in range(workers)]
    processes = [context.Process(target=_read, args=task, daemon=True) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise UserError(f"{folder}: a reading process ended early")
    speed = sum(counts.get() for _ in processes)
    if not speed:
        raise UserError(f"{folder}: none of the training pairs can be read")
    return speed


def _read(folder: Path, split: str, worker: int, workers: int, seconds: float, start: Any, counts: Any) -> None:
    """Puts this worker's clips per second into ``counts``."""
    torch.set_num_threads(1)
    shards, count = PairShards(folder, split), 0
    with suppress(DamagedSample):
        shards.read(worker % len(shards))  # opens the codec
    start.wait(120)  # the others may have died
    began, mine = time.perf_counter(), itertools.count(worker, workers)
    while time.perf_counter() - began < seconds:
        with suppress(DamagedSample):
            shards.read(next(mine) % len(shards))
            count += 1
    counts.put(count / (time.perf_counter() - began))


def latent_speed(folder: Path, model: str, batch: int, seconds: float) -> float:
    """Clips per second of this process when every clip's latents come from the disk, none from memory.

    Raises:
        UserError: nothing to read, or no such model.
    """
    corpus = LatentCorpus(folder, VideoModel.load(model), memory_gb=0)
    if not corpus.refresh():
        raise UserError(f"{folder}: no training pairs in 'train'")
    rng, names, count = np.random.default_rng(0), corpus.clips, 0
    corpus.clip(names[0])
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for k in rng.integers(len(names), size=batch):
            corpus.clip(names[k])
        count += batch
    return count / (time.perf_counter() - began)
