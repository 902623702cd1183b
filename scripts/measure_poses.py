"""Measure the camera estimation against COLMAP's defaults; writes the tables of docs/poses.md.

    python scripts/measure_poses.py --data ../shared/data --write docs/poses.md

Scenes with known cameras (``scenes/*``: transforms.json, images, pairs.json) have their cameras and focal lengths taken
away; 2, 3, 5 and 10 of their frames, drawn with a fixed seed, are placed again. Over all pairs of the drawn frames, the
errors of relative rotation and of translation direction are summed up as the area under their cumulative curve up to 5,
10 and 20 degrees (1 is perfect; a pair with a photo that was not placed has an error of 180 degrees). Sets of photos
without cameras (``photos/*``) show how many photos are placed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = {2: 5, 3: 3, 5: 2, 10: 1}
THRESHOLDS = (5, 10, 20)
SEED = 0


def draw_frames(count: int, pairs: list[dict], n: int, rng: np.random.Generator) -> list[int]:
    """``n`` evenly spaced frames of ``count``, apart by half to the whole gap of the scene's evaluation pairs."""
    usual = int(np.median([pair["last"] - pair["first"] for pair in pairs]))
    gap = min(int(rng.integers((usual + 1) // 2, usual + 1)), (count - 1) // (n - 1))
    start = int(rng.integers(0, count - gap * (n - 1)))
    return [start + gap * i for i in range(n)]


def area_under_curve(errors: np.ndarray, threshold: float) -> float:
    """Area under the cumulative error curve up to ``threshold``, as a fraction of the perfect one."""
    return float(np.clip(1 - errors / threshold, 0, None).mean())


def degrees(cosine: float) -> float:
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def pair_errors(truth: list[np.ndarray], found: list[np.ndarray | None]) -> list[tuple[float, float]]:
    """Rotation and translation direction errors in degrees of all pairs; matrices are world from camera."""
    errors = []
    for i in range(len(truth)):
        for j in range(i + 1, len(truth)):
            a, b = found[i], found[j]
            if a is None or b is None:
                errors.append((180.0, 180.0))
                continue
            true_move, move = np.linalg.inv(truth[j]) @ truth[i], np.linalg.inv(b) @ a
            lengths = float(np.linalg.norm(true_move[:3, 3])) * max(float(np.linalg.norm(move[:3, 3])), 1e-12)
            errors.append(
                (
                    degrees((np.trace(true_move[:3, :3] @ move[:3, :3].T) - 1) / 2),
                    degrees(float(true_move[:3, 3] @ move[:3, 3]) / lengths),
                )
            )
    return errors


def place_with_fvgen(paths: list[Path], read_focals: bool) -> dict:
    """Cameras by this package; the focal lengths of EXIF only where ``read_focals``."""
    from dataclasses import replace

    from fvgen.errors import UserError
    from fvgen.scene import load_photos
    from fvgen.scene.sfm import observe, placed, solve

    photos = load_photos(list(paths))
    if not read_focals:
        photos = replace(photos, focals=[None] * len(photos))
    distinct = photos.without_copies()
    try:
        problem = observe(distinct)
        answer = solve(problem, distinct.names)
    except UserError as error:
        return {"cameras": [None] * len(paths), "note": str(error)}
    found = placed(distinct, problem.pairs, answer)
    assert found.cameras is not None
    assert found.points is not None
    longer = found.cameras.sizes.max(1).values
    matrices = dict(zip(found.photos.names, found.cameras.world_from_camera.tolist()))
    errors = np.bincount(answer["point_index"], answer["errors"]) / np.bincount(answer["point_index"])
    return {
        "cameras": [matrices.get(name) for name in photos.names],
        "note": "; ".join(f"{d.name}: {d.reason}" for d in found.photos.dropped),
        "points": len(found.points),
        "error": float(np.sort(errors)[(len(errors) - 1) // 2]),
        "focal": float((found.cameras.intrinsics[:, 0, 0] / longer).median()),
    }


def place_with_colmap(paths: list[Path]) -> dict:
    """Cameras by pycolmap: SIFT, exhaustive matching, incremental mapping, all with their default options."""
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    with tempfile.TemporaryDirectory() as folder:
        images, database = Path(folder) / "images", Path(folder) / "database.db"
        images.mkdir()
        for i, path in enumerate(paths):
            (images / f"{i:03d}{path.suffix}").write_bytes(path.read_bytes())
        pycolmap.extract_features(database, images)
        pycolmap.match_exhaustive(database)
        models = pycolmap.incremental_mapping(database, images, Path(folder) / "models")
        best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
        cameras: list = [None] * len(paths)
        if best is None:
            return {"cameras": cameras, "note": "no model"}
        for image_id in best.reg_image_ids():
            image = best.image(image_id)
            matrix = np.eye(4)
            matrix[:3] = image.cam_from_world().inverse().matrix()
            cameras[int(image.name[:3])] = matrix.tolist()
        return {"cameras": cameras, "note": "", "points": best.num_points3D()}


def in_own_process(method: str, paths: list[Path], read_focals: bool) -> dict:
    """Run one method in a fresh process, and time it."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [sys.executable, __file__, "--one", method, answer.name, str(int(read_focals)), *map(str, paths)]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result: dict[str, Any]
        if done.returncode != 0:
            note = f"stopped with code {done.returncode}: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
            result = {"cameras": [None] * len(paths), "note": note}
        else:
            result = json.loads(Path(answer.name).read_text())
    result["wall"] = time.monotonic() - start
    result["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result


def run_one(method: str, answer: str, read_focals: str, *paths: str) -> None:
    """What the fresh process does."""
    files = [Path(path) for path in paths]
    result = place_with_colmap(files) if method == "colmap" else place_with_fvgen(files, read_focals == "1")
    Path(answer).write_text(json.dumps(result))


def measure_scenes(data: Path, done: dict, save) -> None:
    """All draws of all scenes by both methods; ``done`` holds what an earlier run has saved."""
    for folder in sorted((data / "scenes").iterdir()):
        scene = json.loads((folder / "transforms.json").read_text())
        pairs = json.loads((folder / "pairs.json").read_text())
        flip = np.diag([1.0, -1.0, -1.0, 1.0])
        cameras = [np.array(frame["transform_matrix"]) @ flip for frame in scene["frames"]]
        for n, draws in DRAWS.items():
            rng = np.random.default_rng([SEED, n])
            for _ in range(draws):
                frames = draw_frames(len(cameras), pairs, n, rng)
                paths = [folder / scene["frames"][i]["file_path"] for i in frames]
                for method in ("fvgen", "colmap"):
                    key = f"{folder.name} {n} {frames} {method}"
                    if key in done:
                        continue
                    result = in_own_process(method, paths, read_focals=False)
                    found = [None if camera is None else np.array(camera) for camera in result["cameras"]]
                    record = {
                        "key": key,
                        "scene": folder.name,
                        "n": n,
                        "method": method,
                        "errors": pair_errors([cameras[i] for i in frames], found),
                        "placed": sum(camera is not None for camera in found),
                    }
                    save(record | {k: result[k] for k in ("note", "wall", "cpu")})


def measure_photos(data: Path, done: dict, save) -> None:
    """All sets of photos by both methods."""
    for folder in sorted((data / "photos").iterdir()):
        paths = sorted(folder.glob("*.jpg"))
        for method in ("fvgen", "colmap"):
            key = f"{folder.name} {method}"
            if key in done:
                continue
            result = in_own_process(method, paths, read_focals=True)
            placed = [i for i, camera in enumerate(result.pop("cameras")) if camera is not None]
            save({"key": key, "set": folder.name, "method": method, "count": len(paths), "placed": placed} | result)


def scene_table(records: list[dict]) -> list[str]:
    """Markdown: one line per number of photos, over all scenes."""
    lines = [
        "| photos | rotation AUC 5 / 10 / 20 | translation AUC 5 / 10 / 20 | placed | CPU s "
        "| COLMAP: rotation | COLMAP: translation | placed | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for n in DRAWS:
        cells = []
        for method in ("fvgen", "colmap"):
            chosen = [r for r in records if r["n"] == n and r["method"] == method]
            if not chosen:
                break
            errors = np.concatenate([np.array(r["errors"]) for r in chosen])
            for column in (0, 1):
                cells.append(" / ".join(f"{area_under_curve(errors[:, column], t):.2f}" for t in THRESHOLDS))
            cells.append(f"{sum(r['placed'] for r in chosen)} of {n * len(chosen)}")
            cells.append(f"{np.median([r['cpu'] for r in chosen]):.0f}")
        if len(cells) == 8:
            lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return lines


def photo_table(records: list[dict]) -> list[str]:
    """Markdown: one line per set of photos."""
    lines = [
        "| set | placed | points | median error, px | focal length, longer sides | CPU s | COLMAP | left out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted({record["set"] for record in records}):
        of = {record["method"]: record for record in records if record["set"] == name}
        if len(of) < 2:
            continue
        ours, theirs = of["fvgen"], of["colmap"]
        numbers = [str(ours["points"]), f"{ours['error']:.2f}", f"{ours['focal']:.2f}"] if ours["placed"] else ["-"] * 3
        lines.append(
            f"| {name} | {len(ours['placed'])} of {ours['count']} | {' | '.join(numbers)} | {ours['cpu']:.0f} "
            f"| {len(theirs['placed'])} of {theirs['count']} | {ours['note'] or '-'} |"
        )
    return lines


def write_tables(page: Path, records: list[dict]) -> None:
    """Replace what stands between the page's markers."""
    scenes = scene_table([record for record in records if "scene" in record])
    photos = photo_table([record for record in records if "set" in record])
    text = page.read_text()
    for name, lines in (("scenes", scenes), ("photos", photos)):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, rest = text.split(begin)
        text = head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    page.write_text(text)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        run_one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with scenes/ and photos/")
    parser.add_argument("--results", type=Path, default=Path("poses.jsonl"), help="every result; a later run goes on")
    parser.add_argument("--write", type=Path, help="page whose tables are replaced; otherwise they are printed")
    options = parser.parse_args()
    lines = options.results.read_text().splitlines() if options.results.is_file() else []
    done = {record["key"]: record for record in map(json.loads, lines)}

    def save(record: dict) -> None:
        done[record["key"]] = record
        print(f"{record['key']}: {record['cpu']:.1f} s CPU, {record['wall']:.1f} s. {record['note']}", flush=True)
        with options.results.open("a") as file:
            file.write(json.dumps(record) + "\n")

    measure_photos(options.data, done, save)
    measure_scenes(options.data, done, save)
    records = list(done.values())
    if options.write:
        write_tables(options.write, records)
    else:
        scenes = scene_table([record for record in records if "scene" in record])
        print("\n".join([*scenes, "", *photo_table([record for record in records if "set" in record])]))


if __name__ == "__main__":
    main()
