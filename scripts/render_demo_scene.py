"""Renders the photographs of `examples/demo`: a furnished study made by code and path-traced with Mitsuba 3.

    pip install mitsuba numpy pillow          # in an environment of its own; fvgen itself does not need mitsuba
    python scripts/render_demo_scene.py --output examples/demo

Writes photos/00.jpg .. 04.jpg (1024 x 640), truth/NNN.jpg (512 x 320, the frames of the path between the photos) and
the true cameras: transforms.json (all frames in the order of the path) and transforms_photos.json (the photos only).
Frames that exist are kept, so an interrupted run goes on where it stopped. The seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo_scene import path as film
from demo_scene import room

PHOTO_SIZE, TRUTH_SIZE = (1024, 640), (512, 320)
PHOTO_SAMPLES, TRUTH_SAMPLES, GUIDE_SAMPLES = 24, 16, 64
EXPOSURE = 1.9
SHEEN = 0.04
"""Added to the albedo when light and texture are separated: what even black things reflect."""
REACH = 5
"""Frames before and after that lend their light to a frame."""


def main() -> None:
    """Traces what is missing, develops it and writes the cameras."""
    args = _arguments()
    frames = list(range(film.FRAMES)) if args.frames is None else args.frames
    work, targets = args.work, {k: args.output / file_name(k) for k in frames}
    work.mkdir(parents=True, exist_ok=True)
    trace_all([k for k in frames if args.force or not _raw(work, k).exists()], args)
    for k, target in targets.items():
        if args.force or not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(developed(pooled_light(work, k)))
            picture.save(target, quality=args.quality, subsampling=0 if film.is_photo(k) else 2, optimize=True)
    if args.scale == 1:
        _write_cameras(args.output / "transforms.json", list(range(film.FRAMES)))
        _write_cameras(args.output / "transforms_photos.json", [k for k in range(film.FRAMES) if film.is_photo(k)])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/demo"))
    parser.add_argument("--work", type=Path, default=Path("runs/demo_scene"), help="for the traced, undeveloped frames")
    parser.add_argument("--samples", type=float, default=1.0, help="times the usual number of paths per pixel")
    parser.add_argument("--depth", type=int, default=5, help="longest path, in segments")
    parser.add_argument("--quality", type=int, default=82, help="of the JPEG files")
    parser.add_argument("--scale", type=float, default=1.0, help="size of a preview; cameras are written only at 1")
    parser.add_argument("--frames", type=int, nargs="*", help="frames of the path to render; all by default")
    parser.add_argument("--force", action="store_true", help="make frames that exist again")
    parser.add_argument("--threads", type=int, help="how many processor cores to use; all by default")
    parser.add_argument("--variant", default="llvm_ad_rgb", help="of Mitsuba: llvm_ad_rgb or cuda_ad_rgb")
    return parser.parse_args()


def file_name(frame: int) -> str:
    """Where a frame lies under the output folder."""
    between = film.BETWEEN + 1
    return f"photos/{frame // between:02d}.jpg" if film.is_photo(frame) else f"truth/{frame:03d}.jpg"


def size(frame: int) -> tuple[int, int]:
    """Width and height of a frame."""
    return PHOTO_SIZE if film.is_photo(frame) else TRUTH_SIZE


def _raw(work: Path, frame: int) -> Path:
    return work / f"{frame:03d}.npz"


def trace_all(frames: list[int], args: argparse.Namespace) -> None:
    """Traces frames into the work folder, one file each."""
    if not frames:
        return
    import drjit
    import mitsuba as mi

    mi.set_variant(args.variant)
    if args.threads:
        drjit.set_thread_count(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        scene = mi.load_dict(room.build(mi, Path(folder)))
        print(f"scene built in {time.time() - start:.0f} s", flush=True)
        for k in frames:
            start = time.time()
            samples = max(1, round(args.samples * (PHOTO_SAMPLES if film.is_photo(k) else TRUTH_SAMPLES)))
            half = _raw(args.work, k).with_suffix(".part")
            with half.open("wb") as file:
                np.savez(file, **trace(mi, scene, k, samples, args.depth, args.scale))  # type: ignore[arg-type]
            half.replace(_raw(args.work, k))
            print(f"frame {k}: {time.time() - start:.1f} s", flush=True)


def trace(mi: Any, scene: Any, frame: int, samples: int, depth: int, scale: float) -> dict[str, np.ndarray]:
    """One frame, noisy: light (colour over albedo), and free of noise its albedo, normals and places; all [h, w, 3].

    Texture is cheap to sample and light is not, so that they are sampled apart.
    """
    w, h = (round(side * scale) for side in size(frame))
    pose = film.camera(frame)
    pose[:3, [0, 2]] *= -1  # Mitsuba's cameras have x to the left and z forward
    view = {"type": "perspective", "fov": film.FIELD_OF_VIEW, "fov_axis": "x", "near_clip": 0.05}
    view |= {"to_world": mi.ScalarTransform4f(pose), "sampler": {"type": "multijitter"}}
    view["film"] = {"type": "hdrfilm", "width": w, "height": h, "rfilter": {"type": "box"}}
    sensor = mi.load_dict(view)

    def channels(integrator: dict[str, Any], count: int) -> np.ndarray:
        image = mi.render(scene, sensor=sensor, integrator=mi.load_dict(integrator), spp=count, seed=frame)
        return np.array(image, dtype=np.float32)

    colour = channels({"type": "path", "max_depth": depth, "rr_depth": depth + 1}, samples)[..., :3]
    same = channels({"type": "aov", "aovs": "albedo:albedo"}, samples)[..., -3:]  # the same seed, so the same rays
    guides = channels({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal,place:position"}, GUIDE_SAMPLES)
    albedo, normal, place = guides[..., -9:-6], guides[..., -6:-3], guides[..., -3:]
    light = (colour / (same + SHEEN)).astype(np.float16)
    return {"light": light, "albedo": albedo.astype(np.float16), "normal": normal.astype(np.float16), "place": place}


Buffers = dict[str, np.ndarray]


def _load(work: Path, frame: int) -> Buffers:
    with np.load(_raw(work, frame)) as file:
        return {name: file[name].astype(np.float32) for name in file.files}


def pooled_light(work: Path, frame: int) -> np.ndarray:
    """The linear picture [h, w, 3] of a traced frame with the noise of its light averaged away.

    The room stands still: frames before and after, where they see the same place, have sampled the same light.
    """
    own = _load(work, frame)
    light = without_sparks(own["light"])
    share = (PHOTO_SAMPLES if film.is_photo(frame) else TRUTH_SAMPLES) * 1.0
    total, weights = share * light, np.full((*light.shape[:2], 1), share, dtype=np.float32)
    for k in range(frame - REACH, frame + REACH + 1):
        if k == frame or not _raw(work, k).exists():
            continue
        other = _load(work, k)
        seen, weight = _seen_by(own, other, k)
        weight = weight * (PHOTO_SAMPLES if film.is_photo(k) else TRUTH_SAMPLES)
        total, weights = total + weight * without_sparks(other["light"])[seen], weights + weight
    return smooth_light(total / weights, own["normal"], own["place"]) * (own["albedo"] + SHEEN)


def _seen_by(own: Buffers, other: Buffers, frame: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Where another frame sees the places of this one (rows, columns), and how well they agree [h, w, 1] in 0..1."""
    h, w = other["place"].shape[:2]
    pose = film.camera(frame)
    local = (own["place"] - pose[:3, 3].astype(np.float32)) @ pose[:3, :3].astype(np.float32)
    depth = np.maximum(-local[..., 2], 1e-3)
    focal = film.focal_length(w)
    columns, rows = w / 2 + focal * local[..., 0] / depth, h / 2 - focal * local[..., 1] / depth
    inside = (columns >= 0) & (columns < w) & (rows >= 0) & (rows < h) & (local[..., 2] < 0)
    seen = (np.clip(rows, 0, h - 1).astype(int), np.clip(columns, 0, w - 1).astype(int))
    return seen, _alike(own, {name: other[name][seen] for name in ("normal", "place")}) * inside[..., None]


def _alike(own: Buffers, other: Buffers) -> np.ndarray:
    """How far two sets of hits lie on the same smooth surface [h, w, 1]: like normals, in one plane."""
    facing = np.clip(np.sum(own["normal"] * other["normal"], -1, keepdims=True), 0, 1) ** 24
    gap = other["place"] - own["place"]
    off = np.sum(own["normal"] * gap, -1, keepdims=True)
    return facing * np.exp(-((off / 0.008) ** 2) - np.sum(gap * gap, -1, keepdims=True) / 0.05**2)


def without_sparks(light: np.ndarray) -> np.ndarray:
    """Light [h, w, 3] in which no pixel is far brighter than its neighbours: rare paths found a lamp by chance."""
    level = light.mean(-1, keepdims=True)
    around = (9 * _blurred(level) - level) / 8
    return light * np.minimum(1, (4 * around + 0.1) / np.maximum(level, 1e-6))


def smooth_light(light: np.ndarray, normal: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Light [h, w, 3] averaged among neighbours on the same surface with like light (a-trous, Dammertz et al. 2010)."""
    for step, tolerance in ((1, 0.8), (2, 0.4), (1, 0.3)):
        total, weights = light.copy(), np.ones((*light.shape[:2], 1), dtype=np.float32)
        level = np.log(_blurred(light.mean(-1, keepdims=True)) + 0.05)
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            move = (dy * step, dx * step)
            there = {"normal": _shifted(normal, move), "place": _shifted(place, move)}
            alike = np.exp(-(((_shifted(level, move) - level) / tolerance) ** 2))
            weight = alike * _alike({"normal": normal, "place": place}, there) * (0.6 if dx and dy else 0.8)
            total, weights = total + weight * _shifted(light, move), weights + weight
        light = total / weights
    return light


def _blurred(field: np.ndarray) -> np.ndarray:
    """The mean of 3 x 3 neighbours."""
    rows = (_shifted(field, (-1, 0)) + field + _shifted(field, (1, 0))) / 3
    return (_shifted(rows, (0, -1)) + rows + _shifted(rows, (0, 1))) / 3


def _shifted(field: np.ndarray, move: tuple[int, int]) -> np.ndarray:
    """field[y + dy, x + dx], the rim repeated."""
    h, w = field.shape[:2]
    rows = np.clip(np.arange(h) + move[0], 0, h - 1)
    columns = np.clip(np.arange(w) + move[1], 0, w - 1)
    return field[rows][:, columns]


def developed(linear: np.ndarray) -> np.ndarray:
    """uint8 sRGB from linear light: fixed exposure, a soft shoulder for the highlights, a little contrast."""
    x = np.maximum(linear, 0) * EXPOSURE
    white = 6.0
    x = x * (1 + x / white**2) / (1 + x)  # Reinhard et al. 2002, Eq. 4
    x = np.clip(x, 0, 1)
    x = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    x = x + 0.12 * (x * x * (3 - 2 * x) - x)
    grey = x.mean(-1, keepdims=True)
    return (np.clip(grey + 1.08 * (x - grey), 0, 1) * 255 + 0.5).astype(np.uint8)


def _write_cameras(target: Path, frames: list[int]) -> None:
    """A transforms.json in the layout of nerfstudio: OpenGL camera axes, z up, metres, pixels."""
    entries = []
    for k in frames:
        (w, h), focal = size(k), film.focal_length(size(k)[0])
        entry: dict[str, Any] = {"file_path": file_name(k), "w": w, "h": h, "fl_x": focal, "fl_y": focal}
        entry |= {"cx": w / 2, "cy": h / 2, "transform_matrix": film.camera(k).round(9).tolist()}
        entries.append(entry)
    target.write_text(json.dumps({"camera_model": "OPENCV", "frames": entries}, indent=1) + "\n")


if __name__ == "__main__":
    main()
