"""``fvgen benchmark ...``: how fast the parts are on this machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from fvgen.errors import UserError


@dataclass(frozen=True)
class Data:
    """Measure how fast training pairs are read, against what a training step uses up."""

    folder: Annotated[Positional[Path], arg(metavar="PAIRS")]
    """The folder of pairs."""

    workers: Annotated[tuple[int, ...], arg(metavar="N...")] = (1, 2)
    """Numbers of reading processes to try."""

    seconds: float = 10.0
    """How long each is measured."""

    appetite: Annotated[float | None, arg(metavar="CLIPS")] = None
    """Clips per second that training uses."""

    training: Annotated[Path | None, arg(metavar="RUN")] = None
    """Take the appetite from a training run's log: its batch over the seconds of its steps."""

    latents: Annotated[str | None, arg(metavar="NAME|FOLDER")] = None
    """Also measure reading the cached latents of this model, which are made first if needed, with nothing in memory."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """Also write the figures as JSON."""

    def run(self) -> None:
        """Measure and print."""
        from fvgen.data.speed import shard_speed

        if not self.workers or min(self.workers) < 1 or self.seconds <= 0:
            raise UserError("--workers and --seconds must be positive")
        appetite = run_appetite(self.training) if self.training is not None else self.appetite
        found: dict[str, Any] = {"pairs": self._pairs(), "appetite_clips_per_second": appetite, "rows": []}
        for workers in self.workers:
            speed = shard_speed(self.folder, workers, self.seconds)
            found["rows"].append({"what": "shards", "workers": workers, "clips_per_second": round(speed, 2)})
        if self.latents is not None:
            found["rows"].append({"what": "latents", "workers": 1, "clips_per_second": self._latents(self.latents)})
        print(table(found["rows"], appetite))
        if self.output is not None:
            self.output.write_text(json.dumps(found, indent=2) + "\n")

    def _pairs(self) -> dict[str, float]:
        from fvgen.data.reader import PairShards

        shards = PairShards(self.folder)
        if not len(shards):
            raise UserError(f"{self.folder}: no training pairs in 'train'")
        entries = [entry for _, entry in shards.samples]
        return {
            "clips": len(entries),
            "frames": sum(entry.frames for entry in entries) / len(entries),
            "width": entries[0].width,
            "height": entries[0].height,
            "bytes": sum(size for entry in entries for _, size in entry.members.values()) / len(entries),
        }

    def _latents(self, name: str) -> float:
        from fvgen.data.speed import latent_speed
        from fvgen.models.model import VideoModel

        return round(latent_speed(self.folder, VideoModel.load(name), 8, self.seconds), 2)


def run_appetite(run: Path) -> float:
    """Clips per second that a training run uses, from its log and its newest checkpoint.

    Raises:
        UserError: it is no training run, or has fewer than two logged steps or no checkpoint.
    """
    from fvgen.training.checkpoints import facts_of, whole_checkpoints
    from fvgen.training.logs import read_log

    lines, saved = read_log(run), whole_checkpoints(run)
    if len(lines) < 2 or not saved:
        raise UserError(f"{run}: too short a run; two logged steps and a checkpoint are needed")
    steps, seconds = (lines[-1][name] - lines[0][name] for name in ("step", "seconds"))
    return facts_of(saved[-1])["config"]["recipe"]["batch"] * steps / seconds


def table(rows: list[dict[str, Any]], appetite: float | None) -> str:
    """The figures as a Markdown table."""
    head = ["| what | processes | clips per second |", "|---|---|---|"]
    body = [f"| {r['what']} | {r['workers']} | {r['clips_per_second']:.1f} |" for r in rows]
    if appetite:
        head = [head[0] + " of the appetite |", head[1] + "---|"]
        body = [f"{line} {r['clips_per_second'] / appetite:.1f} x |" for line, r in zip(body, rows)]
    return "\n".join(head + body)
