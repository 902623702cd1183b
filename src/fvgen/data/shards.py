"""A folder of training pairs: one tar per scene, written whole or not at all, and a manifest of them.

``PAIRS/{train,heldout}/SCENE.tar`` holds the samples of a scene in WebDataset's layout; ``SCENE.json`` beside it says
what is in it, what was dropped and why, and marks the scene as finished. See docs/data.md.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fvgen.data.folders import SPLITS
from fvgen.data.samples import FORMAT, MEMBERS, DamagedSample, Sample, canonical, encode_sample, read_record
from fvgen.data.tarball import DamagedTar, Member, read_member, scan_tar, write_tar
from fvgen.errors import UserError
from fvgen.files import clear_partials, sha256_of, write_whole

MANIFEST = "manifest.json"
_SCENE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True)
class SampleEntry:
    """Where a sample lies in its tar.

    Attributes:
        key: its name.
        frames, width, height: length and size in pixels of its clip.
        members: offset and size in bytes of each of its members.
    """

    key: str
    frames: int
    width: int
    height: int
    members: dict[str, tuple[int, int]]

    def member(self, name: str) -> Member:
        """A member by its name without the key."""
        return Member(f"{self.key}.{name}", *self.members[name])


@dataclass(frozen=True)
class Shard:
    """A scene's tar.

    Attributes:
        split: ``train`` or ``heldout``.
        scene: name of the tar without ``.tar``.
        bytes: size of the tar.
        sha256: of the file, hexadecimal; ``""`` where nobody has computed it yet.
        samples: in the order of the tar.
    """

    split: str
    scene: str
    bytes: int
    sha256: str
    samples: tuple[SampleEntry, ...]

    @property
    def name(self) -> str:
        """``train/SCENE.tar``."""
        return f"{self.split}/{self.scene}.tar"


def write_scene(
    folder: Path,
    split: str,
    scene: str,
    samples: Iterable[Sample],
    dropped: Mapping[str, int] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a finished scene; its bytes depend on the arguments alone.

    A process that is killed leaves the scene unfinished; writing it again then gives the same files. A scene without
    samples has no tar, only its record.

    Args:
        folder: of pairs; made if needed.
        split: ``train`` or ``heldout``.
        scene: letters, digits, ``_``, ``-`` and ``.``; a scene belongs to one split.
        samples: of the scene, with different keys; they are sorted by them.
        dropped: clips that gave no sample, by reason.
        facts: what is known of the scene, as JSON.

    Returns:
        The scene's record, ``SCENE.json``.

    Raises:
        UserError: the other split has this scene.
        ValueError: names that cannot be names of files, or two samples with one key.
    """
    if split not in SPLITS or not _SCENE.fullmatch(scene):
        raise ValueError(f"'{split}/{scene}' cannot be the name of a scene")
    for other in SPLITS:
        if other != split and _record_path(folder, other, scene).exists():
            raise UserError(f"{folder}: the scene {scene} is in '{other}' already; it cannot be in '{split}' as well")
    encoded: dict[str, dict[str, bytes]] = {}
    notes: dict[str, dict[str, Any]] = {}
    for sample in samples:
        if sample.key in encoded:
            raise ValueError(f"two samples of {scene} have the key {sample.key}")
        encoded[sample.key] = encode_sample(sample)
        notes[sample.key] = {"coverage": round(float(sample.pair.coverage.mean()), 6), **sample.facts}
    record_path, tar = _record_path(folder, split, scene), folder / split / f"{scene}.tar"
    tar.parent.mkdir(parents=True, exist_ok=True)
    record_path.unlink(missing_ok=True)  # of another making: the scene is unfinished until the end of this function
    record: dict[str, Any] = {"format": FORMAT, "split": split, "scene": scene, "tar": None, "samples": []}
    if encoded:
        members = [(f"{key}.{name}", encoded[key][name]) for key in sorted(encoded) for name in MEMBERS]
        write_whole(tar, lambda file: write_tar(file, members))
        record |= _entry(_scanned(folder, split, scene, digest=True)[0])
    else:
        tar.unlink(missing_ok=True)
    record |= {"dropped": dict(dropped or {}), "facts": dict(facts or {}), "samples_facts": notes}
    write_whole(record_path, lambda file: file.write(canonical(record)))
    clear_partials(tar)
    clear_partials(record_path)
    return record_path


def is_finished(folder: Path, split: str, scene: str) -> bool:
    """Whether :func:`write_scene` came to its end for this scene and its tar is as large as it was."""
    record = read_scene(folder, split, scene)
    if record is None:
        return False
    tar = folder / split / f"{scene}.tar"
    return not record["samples"] or (tar.is_file() and tar.stat().st_size == record["tar"]["bytes"])


def read_scene(folder: Path, split: str, scene: str) -> dict[str, Any] | None:
    """A scene's record: ``dropped``, ``facts``, ``samples_facts`` and its tar; ``None`` if there is no whole one."""
    try:
        record = json.loads(_record_path(folder, split, scene).read_bytes())
        dropped, facts = record["dropped"], record["samples_facts"]
        if (record["format"], record["split"], record["scene"]) != (FORMAT, split, scene):
            return None
        if not all(isinstance(n, int) for n in dropped.values()) or not isinstance(facts, dict):
            return None
        if record["samples"]:
            _shard(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    return record


def remarks(folder: Path, split: str, scene: str) -> list[str]:
    """What was done to the pictures of a finished scene that the user should know, a line each."""
    record = read_scene(folder, split, scene)
    return [str(line) for line in record["facts"].get("remarks", ())] if record else []


def write_manifest(folder: Path) -> Path:
    """Write ``manifest.json`` anew from the tars and the scenes' records.

    Raises:
        UserError: a scene is in both splits.
    """
    shards: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    for split in SPLITS:
        found, wrong = catalogue(folder, split, manifest=False)
        damaged |= wrong
        for shard in found:
            known = shard if shard.sha256 else _scanned(folder, split, shard.scene, digest=True)[0]
            shards.append({"split": split, "scene": shard.scene, **_entry(known)})
    counts: Counter[str] = Counter(shard["scene"] for shard in shards)
    twice = sorted(scene for scene, count in counts.items() if count > 1)
    if twice:
        raise UserError(f"{folder}: the scene {twice[0]} is in both splits; remove one of its tars")
    manifest = {"format": FORMAT, "shards": shards, "dropped": drops(folder), "damaged": damaged}
    path = folder / MANIFEST
    write_whole(path, lambda file: file.write(canonical(manifest)))
    clear_partials(path)
    return path


def drops(folder: Path) -> dict[str, int]:
    """Clips that gave no sample, by reason, over all scenes."""
    total: Counter[str] = Counter()
    for split in SPLITS:
        for path in sorted((folder / split).glob("*.json")):
            record = read_scene(folder, split, path.stem)
            total.update(record["dropped"] if record else {})
    return dict(sorted(total.items()))


def catalogue(folder: Path, split: str, manifest: bool = True) -> tuple[list[Shard], dict[str, str]]:
    """Every tar of a split, in the order of names, and what is wrong with some, by name.

    What a tar holds is taken from the manifest, or from the scene's record, where the tar's size agrees; any other
    tar is read through, and its whole samples count.
    """
    damaged: dict[str, str] = {}
    listed = _read_manifest(folder, split, damaged) if manifest else {}
    shards = []
    for path in sorted((folder / split).glob("[!.]*.tar")):
        scene, name = path.stem, f"{split}/{path.name}"
        if not _SCENE.fullmatch(scene) or not path.is_file():
            damaged[f"{split}/{path.name!a}"] = "not the name of a scene's tar"
            continue
        listed_shard, size = listed.pop(scene, None), path.stat().st_size
        if listed_shard is None or listed_shard.bytes != size:
            record = read_scene(folder, split, scene)
            listed_shard = _shard(record) if record and record["samples"] else listed_shard
        if listed_shard is not None and listed_shard.bytes == size:
            shards.append(listed_shard)
            continue
        try:
            shard, wrong = _scanned(folder, split, scene)
        except (DamagedTar, OSError) as error:
            damaged[name] = str(error)
            continue
        damaged |= wrong
        if listed_shard is not None:
            damaged.setdefault(name, f"{size} bytes, not {listed_shard.bytes}")
        if shard.samples:
            shards.append(shard)
    damaged.update({f"{split}/{scene}.tar": "missing" for scene in listed})
    return shards, damaged


def _scanned(folder: Path, split: str, scene: str, digest: bool = False) -> tuple[Shard, dict[str, str]]:
    """A tar's whole samples, found by reading its headers and records, and what is wrong with it."""
    path = folder / split / f"{scene}.tar"
    members, wrong = scan_tar(path)
    damaged = {f"{split}/{scene}.tar": wrong} if wrong else {}
    by_key: dict[str, dict[str, Member]] = {}
    for member in members:
        key, _, extension = member.name.partition(".")
        by_key.setdefault(key, {})[extension] = member
    entries = []
    with path.open("rb") as file:
        for key, parts in by_key.items():
            try:
                missing = [name for name in MEMBERS if name not in parts]
                if missing:
                    raise DamagedSample(f"{missing[0]} is missing")
                record = read_record(key, read_member(file, parts["json"]))
                places = {name: (parts[name].offset, parts[name].size) for name in MEMBERS}
                frames, width, height = (int(record[name]) for name in ("frames", "width", "height"))
                entries.append(SampleEntry(key, frames, width, height, places))
            except (KeyError, TypeError, ValueError):
                damaged[f"{split}/{scene}.tar:{key}"] = "the JSON record gives no size"
            except (DamagedSample, DamagedTar) as error:
                damaged[f"{split}/{scene}.tar:{key}"] = str(error)
    return Shard(split, scene, path.stat().st_size, sha256_of(path) if digest else "", tuple(entries)), damaged


def _record_path(folder: Path, split: str, scene: str) -> Path:
    return folder / split / f"{scene}.json"


def _entry(shard: Shard) -> dict[str, Any]:
    samples = [asdict(sample) for sample in shard.samples]
    return {"tar": {"bytes": shard.bytes, "sha256": shard.sha256}, "samples": samples}


def _shard(record: dict[str, Any]) -> Shard:
    """From a record or a manifest; KeyError, TypeError and ValueError where it is not one."""
    split, scene, tar = record["split"], record["scene"], record["tar"]
    if split not in SPLITS or not _SCENE.fullmatch(scene):
        raise ValueError(f"{split}/{scene}")
    samples = []
    for s in record["samples"]:
        places = {name: (int(s["members"][name][0]), int(s["members"][name][1])) for name in MEMBERS}
        samples.append(SampleEntry(str(s["key"]), int(s["frames"]), int(s["width"]), int(s["height"]), places))
    return Shard(split, scene, int(tar["bytes"]), str(tar["sha256"]), tuple(samples))


def _read_manifest(folder: Path, split: str, damaged: dict[str, str]) -> dict[str, Shard]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}")
        return {s["scene"]: _shard(s) for s in manifest["shards"] if s["split"] == split}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        damaged[MANIFEST] = f"cannot be read ({type(error).__name__}); the tars are read instead"
        return {}
