"""A whole evaluation: every split, every system, and what is left behind; and photos handed out to other systems."""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import world_from_local
from fvgen.devices import hardware
from fvgen.errors import UserError
from fvgen.evaluation.datasets import UNMASKED, EvaluationScene
from fvgen.evaluation.protocols import Split, index_hash, index_text
from fvgen.evaluation.scores import Scorer, mean_of_all, mean_of_means, means
from fvgen.evaluation.store import Store, code_hash, key_of, pictures_hash, safe_name, software
from fvgen.evaluation.systems import Frames, System
from fvgen.evaluation.task import Framing, Placing, Task
from fvgen.files import sha256_of, write_json, write_text, write_whole
from fvgen.outputs import output_folder
from fvgen.pictures import to_bytes
from fvgen.progress import track

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What to evaluate.

    Attributes:
        protocol: the protocol's name.
        splits: questions, in order.
        scenes: the scenes they are about, by name.
        framing: of what systems of ours make, for landscape scenes; scored whole, if outside systems declare no other;
            ``None``: the photographs' size, of each split its own.
        placing: of the given photos.
        lens: what was done about distortion.
        index_file: where splits were read from, if from a file.
        absent: entries of that file whose scene is not there.
    """

    protocol: str
    splits: Sequence[Split]
    scenes: dict[str, EvaluationScene]
    framing: Framing | None
    placing: Placing = field(default_factory=Placing)
    lens: str = "undistort"
    index_file: Path | None = None
    absent: Sequence[str] = ()

    def task(self, split: Split, others: Sequence[Framing] = ()) -> Task:
        """A split, ready to be answered, also by systems of other framings."""
        return Task(split, self.scenes[split.scene], self.framing, self.placing, others)


def evaluate(plan: Plan, systems: Sequence[System], scorer: Scorer, store: Store) -> dict[str, Any]:
    """Let every system answer every split, and score the answers; what the store has already is not made again.

    Returns:
        The content of ``results.json``.

    Raises:
        UserError: whatever a system or a scene complains about; what was finished before stays.
    """
    seen = {"truth": "truth"}
    for system in systems:
        if safe_name(system.name) in seen:
            raise UserError(
                f"two systems are called {system.name}: every one needs a name of its own, other than truth"
            )
        seen[safe_name(system.name)] = system.name
    seen = {}
    for split in plan.splits:
        if (name := safe_name(split.name)) in seen:
            raise UserError(f"two splits are called {split.name} and {seen[name]}: every one needs a name of its own")
        seen[name] = split.name
    store.begin()
    write_text(store.folder / "index.json", index_text(plan.splits))
    others = [system.framing for system in systems if system.framing not in (None, plan.framing)]
    records = {}
    for number, split in enumerate(track(plan.splits, "scenes"), 1):
        _log.info("scene %d of %d: %s", number, len(plan.splits), split.name)
        records[split.name] = _Worker(plan.task(split, others), plan, scorer, store).run(systems)
    names = [system.name for system in systems]
    groups: dict[str, dict[str, Any]] = {}
    for name, record in records.items():
        groups.setdefault(record["dataset"], {})[name] = record
    datasets = {
        dataset: {name: _row(name, group, scorer, store) for name in track(names, dataset)}
        for dataset, group in groups.items()
    }
    definitions = {name: next(iter(records.values()))["systems"][name]["definition"] for name in names}
    index: dict[str, Any] = {"sha256": index_hash(plan.splits), "splits": len(plan.splits)}
    if plan.index_file is not None:
        index |= {
            "file": plan.index_file.name,
            "file_sha256": sha256_of(plan.index_file),
            "entries_without_scene": len(plan.absent),
        }
    return {
        "software": software(),
        "hardware": hardware(plan.placing.device),
        "protocol": plan.protocol,
        "index": index,
        "poses": asdict(plan.placing),
        "pictures": {
            "size": plan.framing and list(plan.framing.size),
            "crop": plan.framing.text if plan.framing else "the photographs' own size, at most 1024 pixels long",
            "common_crop": _common_crop(systems, records) if others else None,
            "portrait": "width and height swapped",
            "rounding": "8 bits, rounded to the nearest level, for every system and the truth",
            "lens": plan.lens,
            "given_photos": "whole, at their own size",
            **({"masks": f"of given photos: what they hide gives no points; {UNMASKED}"} if _masked(plan) else {}),
        },
        **scorer.definition(),
        "metrics_absent": scorer.absent,
        "systems": {  # apart from what differs from split to split
            name: {key: value for key, value in definition.items() if key not in ("frames_sha256", "seconds")}
            for name, definition in definitions.items()
        },
        "datasets": datasets,
        **({"mean_of_datasets": _mean_of_datasets(datasets, names)} if len(datasets) > 1 else {}),
        "splits": records,
    }


def _masked(plan: Plan) -> bool:
    frames = (frame for split in plan.splits for frame in plan.scenes[split.scene].frames)
    return any(frame.mask is not None for frame in frames)


class _Worker:
    """One split: its record, filled step by step and saved after each."""

    def __init__(self, task: Task, plan: Plan, scorer: Scorer, store: Store) -> None:
        self.task, self.scorer, self.store = task, scorer, store
        split = task.split
        self.key = key_of(
            {
                "split": asdict(split),
                "files": task.source.fingerprint(sorted({*split.context, *split.target})),
                "framing": plan.framing and asdict(plan.framing),
                "placing": asdict(plan.placing),
                "lens": plan.lens,
                "code": code_hash(),
            }
        )
        self.framings = key_of([asdict(framing) for framing in task.framings])
        record = store.record(split.name)
        fresh: dict[str, Any] = {"key": self.key, "systems": {}}
        self.record = record if record.get("key") == self.key else fresh
        self._truth: Tensor | None = None
        self.guided = False

    @property
    def truth(self) -> Tensor:
        """True frames as uint8, from the store where they are there."""
        name, names = self.task.split.name, self.task.names
        if self._truth is None and self.record.get("truth_key") == self.framings:
            self._truth = self.store.load_frames("truth", name, names, self.record["truth_sha256"])
        if self._truth is None:
            self._truth = to_bytes(self.task.truth)
            self.record["truth_sha256"] = self.store.save_frames("truth", name, names, self._truth)
            self.record["truth_key"] = self.framings
        return self._truth

    def run(self, systems: Sequence[System]) -> dict[str, Any]:
        """The finished record; systems of earlier runs that are not asked for now are not in it."""
        task, split = self.task, self.task.split
        self.record |= {
            "scene": split.scene,
            "dataset": task.source.dataset,
            "layout": task.source.layout,
            "pictures": task.source.pictures,
            "context": split.context,
            "target": split.target,
            "names": task.names,
            "given": task.is_given,
        }
        self.guided = not all(isinstance(system, Frames) for system in systems)  # else nothing needs a scene
        for system in track(systems, split.name):
            self._answer(system)
            self.record |= {"size": [self.truth.shape[2], self.truth.shape[1]], "crop": task.scored.text}
            if task.fit:
                self.record["alignment"] = task.fit
            if "geometry" in task.seconds:
                self.record["geometry_seconds"] = task.seconds["geometry"]
            self.store.save_record(split.name, self.record)
        return {**self.record, "systems": {s.name: self.record["systems"][s.name] for s in systems}}

    def _answer(self, system: System) -> None:
        """Frames and scores of one system, as far as they are not there already."""
        task, name = self.task, self.task.split.name
        definition = system.definition(task)
        made_key = key_of([self.key, definition])
        old = self.record["systems"].get(system.name, {})
        whole = None
        for part in ("made", "frames") if old.get("key") == made_key else ():
            if whole is None:
                whole = self.store.load_frames(system.name, name, task.names, old.get("made_sha256"), part)
        if whole is None:
            whole, seconds = system.make(task)
            old = {**old, "seconds": seconds}
        frames, resampled = task.cut(whole, task.turned(system.framing))
        if frames is not whole and definition["kind"] != "frames":
            self.store.save_frames(system.name, name, task.names, whole, "made")
        entry = {**old, "key": made_key, "definition": definition, "made_sha256": pictures_hash(whole)}
        entry["frames_sha256"] = self.store.save_frames(system.name, name, task.names, frames)
        entry["resampled"] = resampled
        pictures = [entry["frames_sha256"], pictures_hash(self.truth), self.framings]
        scores_key = key_of([*pictures, self.scorer.definition(), code_hash(), self.guided])
        if old.get("scores_key") != scores_key:
            geometry = task.geometry if self.guided else None
            columns = self.scorer.frames(frames, self.truth, geometry)
            if geometry is not None:
                self.record["coverage"] = [float(c.float().mean()) for c in geometry.coverage]
            entry |= {"scores_key": scores_key, "frames": columns}
            entry["mean"] = means(columns, [not given for given in task.is_given])
            entry["mean_with_given"] = means(columns)
        self.record["systems"][system.name] = entry


def _common_crop(systems: Sequence[System], records: dict[str, Any]) -> dict[str, Any]:
    """Where systems made pictures of several framings: what was scored, and whose pictures were resampled for it."""
    by_system = {s.name: [record["systems"][s.name]["resampled"] for record in records.values()] for s in systems}
    return {
        "what": "the part of the photographs that all systems show, in whole pixels of the coarsest",
        "sizes": list(dict.fromkeys("{}x{}".format(*record["size"]) for record in records.values())),
        "declared": {s.name: s.framing.text for s in systems if s.framing is not None},
        "resampled": [name for name, told in by_system.items() if any(told)],
        "only_cut": [name for name, told in by_system.items() if not any(told)],
        "by": "Lanczos, from parts of pixels too, to the coarsest's scale; the truth from the photograph itself",
    }


def _mean_of_datasets(datasets: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """By system: means over data sets, each counted once; ``None`` where one of them has no number."""
    found: dict[str, Any] = {}
    for name in names:
        rows = [systems[name] for systems in datasets.values()]
        found[name] = {"datasets": len(rows), **{key: sum(row[key] for row in rows) for key in ("splits", "images")}}
        for part in ("mean", "mean_with_given", "distances"):
            if any(part in row for row in rows):  # given views are not asked for in every data set
                parts = [row.get(part, row["mean"]) for row in rows]
                found[name][part] = {metric: mean_of_all([p.get(metric) for p in parts]) for metric in parts[0]}
        found[name]["seconds"] = mean_of_all([row["seconds"] for row in rows])
    return found


def _row(system: str, records: dict[str, dict[str, Any]], scorer: Scorer, store: Store) -> dict[str, Any]:
    """Means over splits of means over frames, set distances, seconds, number of images."""
    entries = [record["systems"][system] for record in records.values()]
    given = [record["given"] for record in records.values()]
    row: dict[str, Any] = {"splits": len(records), "images": sum(own.count(False) for own in given)}
    row["mean"] = mean_of_means([entry["mean"] for entry in entries])
    if any(map(any, given)):
        row["mean_with_given"] = mean_of_means([entry["mean_with_given"] for entry in entries])
    row["distances"] = scorer.distances(_pictures(system, records, store))
    totals = [sum(entry["seconds"].values()) for entry in entries if entry["seconds"]]
    row["seconds"] = sum(totals) / len(totals) if totals else None
    return row


def _pictures(system: str, records: dict[str, dict[str, Any]], store: Store) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Split by split its name and, of the frames asked for and not given, the system's pictures and the true ones."""
    for split, record in records.items():
        asked = torch.tensor([not given for given in record["given"]])
        hashes = {system: record["systems"][system]["frames_sha256"], "truth": record["truth_sha256"]}
        made, truth = (store.load_frames(name, split, record["names"], like) for name, like in hashes.items())
        if made is None or truth is None:
            raise UserError(f"frames of {split} in {store.folder} were changed while this ran; start it again")
        yield split, made[asked], truth[asked]


_FAR = 1000  # spreads of the cameras from the world's origin


def write_handout(plan: Plan, folder: Path) -> None:
    """Write every split as a scene of its own, frames given and asked for, at the scored size.

    - ``test/NNNNNN.torch`` and ``test/index.json`` (key to chunk): pictures as PNG bytes; cameras as
      ``[n, 18]``: fx, fy, cx, cy as shares of width and height, 0, 0, and the 3x4 world-to-camera matrix, OpenCV axes;
      far from the world's origin, of a world centred on the cameras.
    - ``evaluation_index.json``: key to ``context`` and ``target``, numbers within the chunk.
    - ``frames.json``: key to the names of the chunk's frames, by which answers are called.

    Raises:
        UserError: the folder is not empty, or a picture cannot be read.
    """
    with output_folder(folder) as out:
        (out / "test").mkdir()
        chunks, questions, names = {}, {}, {}
        for number, split in enumerate(track(plan.splits, "handout")):
            rows = sorted({*split.context, *split.target})
            task = plan.task(replace(split, target=rows))
            chunks[split.name] = f"{number:06d}.torch"
            scene = [_chunk_scene(split.name, rows, task)]
            write_whole(out / "test" / chunks[split.name], lambda file, scene=scene: torch.save(scene, file))  # type: ignore[misc]
            places = {"context": split.context, "target": split.target}
            questions[split.name] = {part: [rows.index(i) for i in frames] for part, frames in places.items()}
            names[split.name] = task.names
        contents = {"test/index.json": chunks, "evaluation_index.json": questions, "frames.json": names}
        for file, content in contents.items():
            write_json(out / file, content)


def _chunk_scene(key: str, rows: list[int], task: Task) -> dict[str, Any]:
    cameras = Cameras.concatenate([camera for _, camera in task.targets])
    spread = (cameras.centers - cameras.centers[0]).abs().max()
    if cameras.centers.abs().max() > _FAR * spread:  # the format is float32, which is coarse there
        cameras = world_from_local(cameras, 1.0).inverse.cameras(cameras)
    k, (width, height) = cameras.intrinsics, cameras.sizes.double().unbind(1)
    shares = torch.stack([k[:, 0, 0] / width, k[:, 1, 1] / height, k[:, 0, 2] / width, k[:, 1, 2] / height], 1)
    matrices = cameras.camera_from_world[:, :3].flatten(1)
    numbers = torch.cat([shares, torch.zeros(len(rows), 2, dtype=torch.float64), matrices], 1)
    images = []
    for picture in task.truth:
        with io.BytesIO() as buffer:
            Image.fromarray(to_bytes(picture).numpy()).save(buffer, "PNG")
            images.append(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8))
    return {"key": key, "url": "", "timestamps": torch.tensor(rows), "cameras": numbers.float(), "images": images}
