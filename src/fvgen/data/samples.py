"""A training pair as the members of a shard: two H.264 clips, a bit mask, and a JSON record that seals them."""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fvgen.cameras import Cameras
from fvgen.data.h264 import decode_h264, encode_h264
from fvgen.data.pairs import Pair

MEMBERS = ("clip.mp4", "coverage.npz", "guide.mp4", "json")
FORMAT = 1
# No dot, at which WebDataset ends a key; short enough for the plainest tar header.
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_LARGEST = 1 << 31  # pixels of a clip; a record that says more is not believed


class DamagedSample(Exception):
    """A sample that cannot be trusted; the message says why."""


@dataclass(frozen=True)
class Sample:
    """A pair with its name and what is known about it.

    Attributes:
        key: letters, digits, ``_`` and ``-``, at most 80; unique in its scene.
        pair: the clip and its guide.
        facts: provenance and quality figures: what JSON can say; plain numbers are drawn as histograms.
    """

    key: str
    pair: Pair
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError(f"'{self.key}': a key has letters, digits, '_' and '-', 80 at most")


def encode_sample(sample: Sample) -> dict[str, bytes]:
    """The content of the members ``MEMBERS``; a function of the sample alone.

    Raises:
        ValueError: arrays that do not belong together, or facts that JSON cannot hold.
    """
    pair = sample.pair
    _check(pair)
    blobs = {
        "clip.mp4": encode_h264(pair.frames),
        "coverage.npz": _packed(pair.coverage),
        "guide.mp4": encode_h264(pair.guide),
    }
    cameras = pair.cameras
    record = {
        "format": FORMAT,
        "key": sample.key,
        "frames": len(pair.frames),
        "width": pair.frames.shape[2],
        "height": pair.frames.shape[1],
        "photo": pair.photo.tolist(),
        "cameras": {
            "axes": "OpenCV",
            "world_from_camera": cameras.world_from_camera.tolist(),
            "intrinsics": cameras.intrinsics.tolist(),
        },
        "facts": sample.facts,
        "sha256": {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()},
    }
    record = json.loads(canonical(record))  # as a reader will see it
    return {**blobs, "json": canonical({**record, "seal": _seal(record)})}


def read_record(key: str, data: bytes) -> dict[str, Any]:
    """The JSON member of a sample, whose seal is checked.

    Raises:
        DamagedSample: it is not one that :func:`encode_sample` wrote for this key.
    """
    try:
        record = json.loads(data)
        seal = record.pop("seal")
        whole = seal == _seal(record)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedSample(f"the JSON record cannot be read ({error})") from None
    if not whole:
        raise DamagedSample("the JSON record is not as it was written")
    if record.get("format") != FORMAT:
        raise DamagedSample(f"format {record.get('format')} is not known")
    if record.get("key") != key:
        raise DamagedSample("the JSON record is that of another sample")
    return record


def decode_sample(key: str, members: Mapping[str, bytes]) -> tuple[Pair, dict[str, Any]]:
    """The inverse of :func:`encode_sample`, up to H.264's losses; photographs are equal in clip and guide.

    Returns:
        The pair and its facts.

    Raises:
        DamagedSample: a member is not as it was written.
    """
    record = read_record(key, members["json"])
    for name in MEMBERS[:3]:
        if record.get("sha256", {}).get(name) != hashlib.sha256(members[name]).hexdigest():
            raise DamagedSample(f"{name} is not as it was written")
    try:
        return _decoded(record, members), record["facts"]
    except Exception as error:  # content from elsewhere: whatever a decoder makes of it is damage, not the end of a run
        raise DamagedSample(f"{type(error).__name__}: {error}") from None


def _decoded(record: dict[str, Any], members: Mapping[str, bytes]) -> Pair:
    t, w, h = (int(record[name]) for name in ("frames", "width", "height"))
    if min(t, w, h) < 1 or t * w * h > _LARGEST:
        raise ValueError(f"{t} frames of {w}x{h}")
    frames, guide = (decode_h264(members[name], t, w, h) for name in ("clip.mp4", "guide.mp4"))
    photo = np.array(record["photo"], dtype=bool)
    guide[photo] = frames[photo]
    cameras = Cameras(
        torch.tensor(record["cameras"]["world_from_camera"], dtype=torch.float64),
        torch.tensor(record["cameras"]["intrinsics"], dtype=torch.float64),
        torch.tensor([[w, h]]).repeat(t, 1),
    )
    pair = Pair(frames, guide, _unpacked(members["coverage.npz"], (t, h, w)), photo, cameras)
    _check(pair)
    return pair


def _check(pair: Pair) -> None:
    shape = pair.frames.shape
    same = pair.guide.shape == shape and pair.coverage.shape == shape[:3] and pair.photo.shape == shape[:1]
    if len(shape) != 4 or shape[3] != 3 or not same or len(pair.cameras) != shape[0] or 0 in shape:
        raise ValueError(f"a pair's frames, guide, coverage, photo flags and cameras do not fit together: {shape}, ...")
    if pair.cameras.size != (shape[2], shape[1]):
        raise ValueError(f"cameras of {pair.cameras.size} for frames of {(shape[2], shape[1])}")


def _packed(coverage: NDArray[np.bool_]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, bits=np.packbits(coverage), shape=np.array(coverage.shape))
    return file.getvalue()


def _unpacked(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        if tuple(stored["shape"].tolist()) != shape:
            raise ValueError(f"coverage of {stored['shape'].tolist()}, not {list(shape)}")
        return np.unpackbits(stored["bits"], count=int(np.prod(shape))).reshape(shape).astype(bool)


def canonical(value: Any) -> bytes:
    """JSON with one spelling only."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(record)).hexdigest()
