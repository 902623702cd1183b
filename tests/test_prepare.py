"""Footage into pairs: what is dropped and why, the same bytes every time, in processes, killed, and on Ray."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.cli.main import main
from fvgen.data import farm
from fvgen.data.clips import Stretch, against, overlapping, stretches
from fvgen.data.farm import attempt, make_stage, prepare_pairs, read_stage, write_stage
from fvgen.data.footage import SceneTask, find_scenes
from fvgen.data.pairs import Pair, make_pair, procedural_pair
from fvgen.data.prepare import Clip, Ledger, cropped, make_samples, moving, prepare_scene, split_of
from fvgen.data.reader import PairShards
from fvgen.data.recipe import PrepareRecipe
from fvgen.data.summary import describe, summarise
from fvgen.errors import UserError
from fvgen.procedural import procedural_scene
from fvgen.rendering import render_points
from fvgen.scene.depth import estimate_depths
from fvgen.scene.formats.transforms_json import write_transforms_json
from fvgen.scene.photos import Shot
from fvgen.scene.points import fuse_points
from pretend_device import PretendedGpu

RECIPE = PrepareRecipe(width=128, height=80, frames=6, clips=1, attempts=3, longest_stride=1)


def film(seed: int, frames: int = 8, width: int = 192, height: int = 120):
    """A procedural scene's pictures ``[T, H, W, 3]`` and cameras: footage whose truth is known."""
    scene = procedural_scene(seed, frames, width, height)
    pictures = np.concatenate([scene.film(scene.cameras[i])[0] for i in range(frames)])
    return torch.from_numpy(pictures), scene.cameras


def save_scene(folder: Path, seed: int = 9) -> Path:
    pictures, cameras = film(seed)
    (folder / "images").mkdir(parents=True)
    for k, picture in enumerate(pictures):
        Image.fromarray(picture.numpy()).save(folder / "images" / f"{k}.png")
    write_transforms_json(folder / "transforms.json", cameras, [f"images/{k}.png" for k in range(len(pictures))])
    return folder


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    return save_scene(tmp_path_factory.mktemp("footage") / "walk")


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.tar")
    }


def record(folder: Path, scene: str) -> dict:
    (path,) = folder.glob(f"*/{scene}.json")
    return json.loads(path.read_text())


def test_stretches_fit_and_do_not_repeat():
    recipe = PrepareRecipe(frames=16, clips=5, attempts=4)
    found = stretches(100, recipe, np.random.default_rng(0))
    assert len(found) == len(set(found)) == 20
    assert {s.stride for s in found} == {1, 2, 3, 4}
    assert all(s.rows[0] >= 0 and s.rows[-1] < 100 and len(s.rows) == 16 for s in found)
    assert stretches(15, recipe, np.random.default_rng(0)) == []
    assert {s.stride for s in stretches(32, recipe, np.random.default_rng(0))} == {1, 2}
    assert overlapping(Stretch(0, 1, 16), [Stretch(5, 1, 16)], 0.5)
    assert not overlapping(Stretch(0, 1, 16), [Stretch(10, 1, 16)], 0.5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda x, y: x, ""),
        (lambda x, y: torch.cat([x[:4], y[4:]]), "shot cut"),
        (lambda x, y: x[:1].repeat(8, 1, 1, 1), "static"),
        (lambda x, y: torch.stack([*x[:7], smeared(x[7])]), "blur"),
        (lambda x, y: [fog(k) for k in range(8)], "no detail"),
        (lambda x, y: [*x[:7], x[7][:100]], "size changes"),
    ],
)  # fmt: skip
def test_pictures_tell_what_makes_no_clip(spoil, reason):
    x, y = film(3)[0], film(7)[0]
    assert against(list(spoil(x, y))) == reason


def fog(k):
    """A ramp of grey that brightens from picture to picture."""
    return (torch.linspace(0, 25 * (k + 1), 192)[None, :, None]).expand(120, 192, 3).byte()


def smeared(picture):
    """Motion blur of 25 pixels."""
    return torch.stack([picture.float().roll(k, 1) for k in range(25)]).mean(0).byte()


def test_a_crop_keeps_the_rays_of_what_is_left():
    pictures, cameras = film(3)
    whole = Shot(pictures[0], 200.0, cameras[0])
    part = cropped(whole, (0.5, 0.25, 1.0, 1.0))
    assert torch.equal(part.image, pictures[0][30:, 96:])
    assert part.camera.size == (96, 90)
    point = torch.tensor([0.3, 0.2, 1.0], dtype=torch.float64)
    (u, v, _), (x, y, _) = (c.intrinsics[0].double() @ point for c in (whole.camera, part.camera))
    assert (float(u - x), float(v - y)) == pytest.approx((96, 30))
    assert cropped(whole, None) is whole
    with pytest.raises(UserError, match="nothing is left"):
        cropped(whole, (0.5, 0.5, 0.5001, 1))
    with pytest.raises(UserError, match="shares of the size"):
        PrepareRecipe(crop=(0.5, 0, 0.4, 1))


def test_something_that_moves_is_seen():
    x = film(3)[0].numpy()
    coverage, photo = np.ones(x.shape[:3], bool), np.array([True] + [False] * 6 + [True])
    still = Pair(x, x, coverage, photo, film(3)[1])
    guide = x.copy()
    guide[:, 20:60, 40:90] = 255 - guide[:, 20:60, 40:90] // 2
    assert not moving(still, "lookup")
    assert moving(Pair(x, guide, coverage, photo, still.cameras), "lookup")
    noise = np.random.default_rng(0).integers(0, 256, x.shape, np.uint8)
    assert not moving(Pair(x, noise, coverage, photo, still.cameras), "lookup")  # wrong everywhere is another reason


def test_something_that_moves_is_seen_under_points_too():
    pair = procedural_pair(9, 4, 128, 80, guide="points")
    assert not moving(pair, "points")
    frames = pair.frames.copy()
    frames[1:3, 20:60, 20:70] = 255 - frames[1:3, 20:60, 20:70] // 2
    assert moving(replace(pair, frames=frames), "points")


def test_a_scene_gives_the_same_bytes_however_it_is_made(walk, tmp_path):
    (task,) = find_scenes([walk])
    prepare_scene(task, RECIPE, tmp_path / "whole")
    clips, ledger = read_stage(task, RECIPE)
    write_stage(*make_stage(clips, ledger, task, RECIPE), task, RECIPE, tmp_path / "staged")
    prepare_pairs([walk], RECIPE, tmp_path / "process")
    assert len(hashes(tmp_path / "whole")) == 1
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "staged") == hashes(tmp_path / "process")
    pair, facts = PairShards(tmp_path / "whole", split_of("walk", RECIPE.held_out)).read(0)
    assert pair.frames.shape == (6, 80, 128, 3)
    assert pair.photo.tolist() == [True] + [False] * 4 + [True]
    assert facts["psnr"] > 18
    assert facts["coverage"] > 0.5


def test_pairs_hold_the_guide_that_is_asked_for(walk, tmp_path):
    made = {}
    for kind in ("lookup", "points"):
        options = ["--size", "128x80", "--frames", "6", "--clips", "1", "--longest-stride", "1", "--guide", kind]
        sources = [str(walk), "procedural:2"]
        assert main(["prepare", *sources, "-o", str(tmp_path / kind), "--least-frames", "6", *options]) == 0
        shards = PairShards(tmp_path / kind, "train")
        made[kind] = {facts["source"]: (pair, facts) for pair, facts in map(shards.read, range(len(shards)))}
        assert len(made[kind]) == 2
    for source, (points, facts) in made["points"].items():
        surface, other = made["lookup"][source]
        assert (facts["guide"], other["guide"]) == ("points", "lookup")
        assert np.array_equal(points.photo, surface.photo)
        black = ~points.coverage
        assert black.mean() > 0.01
        assert points.guide[black].mean() < 0.25 * surface.guide[black].mean()  # over black, not completed
        assert float(facts["psnr"]) > 15


def test_procedural_pairs_of_points_are_renders_of_measured_points():
    options = (5, 4, 128, 80)
    points, surface = procedural_pair(*options, guide="points"), procedural_pair(*options)
    large = procedural_scene(*options).cameras[[0, 3]].resized(256, 160)
    images = [torch.from_numpy(p) for p in procedural_scene(*options).film(large, torch.tensor([0.0, 1.0]))[0]]
    cloud = fuse_points(estimate_depths(images, large, 256))
    assert not cloud.measured.all()
    seen = cloud.positions[cloud.measured], cloud.colors[cloud.measured].float() / 255
    wanted = render_points(*seen, points.cameras[[1, 2]])
    assert np.array_equal(points.guide[1:3], (wanted.image * 255 + 0.5).byte().numpy())
    assert np.array_equal(points.coverage[1:3], (wanted.alpha >= 0.5).numpy())
    assert np.array_equal(points.frames, surface.frames)
    assert np.array_equal(points.guide[[0, 3]], points.frames[[0, 3]])


@pytest.mark.parametrize("kind", ["lookup", "points"])
def test_the_guide_of_a_pair_is_made_on_the_device_and_each_picture_fetched_once(kind):
    scene = procedural_scene(5, 3, 96, 64)
    truth = scene.film(scene.cameras)[0]
    images = [torch.from_numpy(picture) for picture in truth[[0, 2]]]
    clip = truth, scene.cameras, estimate_depths(images, scene.cameras[[0, 2]], 96), (0, 2)
    with PretendedGpu(fetch=True) as gpu:
        there = make_pair(*clip, "cuda", kind)
    picture, plane = (64, 96, 3), (64, 96)
    if kind == "lookup":  # picture, share, coverage and depth; of photographs only depth
        assert gpu.fetched == [plane, picture, plane, plane, plane, plane]
    else:  # picture, coverage and depth
        assert gpu.fetched == [picture, plane, plane] * 3
    here = make_pair(*clip, guide=kind)
    assert np.array_equal(here.guide, there.guide)
    assert np.array_equal(here.coverage, there.coverage)


def test_the_recipes_device_renders_the_guide(walk, monkeypatch):
    asked = []
    real = make_pair

    def noted(*arguments):
        asked.append(arguments[4:])
        return real(*arguments[:4])

    monkeypatch.setattr("fvgen.data.prepare.make_pair", noted)
    (task,) = find_scenes([walk])
    recipe = replace(RECIPE, device="cpu:0", guide="points")
    clips, ledger = read_stage(task, recipe)
    assert make_stage(clips, ledger, task, recipe)[0]
    assert set(asked) == {("cpu:0", "points")}


def test_one_frames_cloud_shows_that_frame(walk, tmp_path):
    (task,) = find_scenes([walk])
    prepare_scene(task, PrepareRecipe(**{**RECIPE.__dict__, "cloud": "one"}), tmp_path)
    pair, facts = PairShards(tmp_path, split_of("walk", RECIPE.held_out)).read(0)
    assert pair.photo.sum() == 1
    assert facts["cloud"] == "one"


def test_a_wide_gap_in_footage_costs_the_clips_across_it_alone():
    pictures, cameras = film(5, 24)
    rows = [0, 1, 2, 3, 20, 21, 22, 23]

    def clip(stretch: Stretch) -> Clip:
        own = [rows[k] for k in stretch.rows]
        return Clip(stretch, [pictures[k] for k in own], cameras[own], [None] * len(own))

    across, wider, before, after = (Stretch(*s) for s in ((2, 1, 4), (1, 1, 6), (0, 1, 4), (4, 1, 4)))
    recipe, ledger = replace(RECIPE, clips=4, least_coverage=0.6), Ledger()
    clips = map(clip, (across, wider, before, after))
    samples = make_samples(clips, ledger, SceneTask("walk", "posed", Path()), recipe)
    assert [s.facts["start"] for s in samples] == [before.start, after.start]
    assert ledger.dropped == {"little covered": 1}  # what contains it was not tried


def test_masked_pixels_give_no_points_and_that_is_told(tmp_path, caplog):
    """A magenta block in every picture, masked: the guide does not know of it; the same without masks shows it."""
    magenta, block = np.array([255, 0, 255], np.uint8), (slice(48, 72), slice(80, 104))
    shares = {}
    for name in ("plain", "masked"):
        folder = save_scene(tmp_path / name)
        usable = np.full((120, 192), 255, np.uint8)
        usable[block] = 0
        Image.fromarray(usable).save(folder / "mask.png")
        for path in (folder / "images").iterdir():
            picture = np.array(Image.open(path))
            picture[block] = magenta
            Image.fromarray(picture).save(path)
        listed = json.loads((folder / "transforms.json").read_text())
        listed["frames"].append(listed["frames"][0])
        if name == "masked":
            listed["frames"] = [{**frame, "mask_path": "mask.png"} for frame in listed["frames"]]
        (folder / "transforms.json").write_text(json.dumps(listed))
        with caplog.at_level("INFO", "fvgen"):
            prepare_pairs([folder], replace(RECIPE, least_psnr=0.0), tmp_path / f"{name}-pairs")
        shards = [PairShards(tmp_path / f"{name}-pairs", split) for split in ("train", "heldout")]
        (pair,) = [one.read(0)[0] for one in shards if len(one)]
        shown = pair.guide[~pair.photo].astype(int)
        shares[name] = float((np.abs(shown - magenta).max(-1) < 60).mean())
        told = record(tmp_path / f"{name}-pairs", name)["facts"]["remarks"]
        assert told[0] == "named more than once, used once: 0.png"
        assert all(f"{name}: {line}" in caplog.messages for line in told)
        page = describe(summarise(tmp_path / f"{name}-pairs"))
        assert "noted: 1 x named more than once" in page
        masks = "masks of 8 frames: no points from what they hide, which the frames to learn still show"
        assert told[1:] == ([masks] if name == "masked" else [])
        assert ("noted: 1 x masks of frames: no points" in page) == (name == "masked")
    assert shares["plain"] > 0.005
    assert shares["masked"] == 0


def test_bad_footage_is_counted_and_named_and_stops_nothing(walk, tmp_path):
    footage = tmp_path / "footage"
    save_scene(footage / "good")
    save_scene(footage / "empty")
    for path in (footage / "empty" / "images").iterdir():
        path.write_bytes(b"")
    save_scene(footage / "outside")
    transforms = footage / "outside" / "transforms.json"
    transforms.write_text(transforms.read_text().replace("images/3.png", "../../../etc/hosts"))
    save_scene(footage / "crooked")
    transforms = footage / "crooked" / "transforms.json"
    values = json.loads(transforms.read_text())
    values["frames"][2]["transform_matrix"][0][0] = 7.0
    transforms.write_text(json.dumps(values))
    (footage / "clip.mp4").write_bytes(b"\x00" * 100)
    save_scene(footage / "short")
    values = json.loads((footage / "short" / "transforms.json").read_text())
    values["frames"] = values["frames"][:4]
    (footage / "short" / "transforms.json").write_text(json.dumps(values))
    pairs = tmp_path / "pairs"
    prepare_pairs([footage], RECIPE, pairs)
    assert [name.split("/")[1] for name in hashes(pairs)] == ["good.tar"]
    assert record(pairs, "empty")["dropped"] == {"unreadable": 3}
    for scene, words in (("outside", "leaves its folder"), ("crooked", "not a rotation"), ("clip", "clip.mp4")):
        assert record(pairs, scene)["dropped"] == {"unreadable": 1}
        assert words in record(pairs, scene)["facts"]["notes"][0]
    assert record(pairs, "short")["dropped"] == {"too short": 1}
    assert json.loads((pairs / "manifest.json").read_text())["dropped"] == {"too short": 1, "unreadable": 6}


def test_an_unforeseen_error_is_counted_too(walk, tmp_path):
    (task,) = find_scenes([walk])
    attempt(SceneTask(task.name, "a layout that nobody knows", task.path), RECIPE, tmp_path)
    assert record(tmp_path, "walk")["dropped"] == {"error": 1}
    assert "nobody knows" in record(tmp_path, "walk")["facts"]["notes"][0]


def test_the_split_goes_by_the_scenes_name_alone():
    names = [f"scene-{k}" for k in range(4000)]
    held = [name for name in names if split_of(name, 0.1) == "heldout"]
    assert 320 < len(held) < 480
    assert all(split_of(name, 0.2) == "heldout" for name in held)  # a larger share keeps those held out already
    assert all(split_of(name, 0) == "train" for name in names)


def test_the_command_says_what_it_made(walk, tmp_path, capsys):
    options = ["--size", "128x80", "--frames", "6", "--clips", "1", "--longest-stride", "1"]
    assert main(["prepare", str(walk), "-o", str(tmp_path / "pairs"), *options]) == 0
    printed, told = capsys.readouterr()
    assert "1 clip" in printed
    assert told.splitlines()[0] == "scenes: 1 to prepare, 0 there already"
    assert told.splitlines()[1].startswith("prepared 1 of 1: ")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*.tar")}
    assert main(["prepare", str(walk), "-o", str(tmp_path / "pairs"), *options]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*.tar")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "x"], "nowhere: no such file or folder"),
        (["procedural:2", "-o", "x", "--frames", "2"], "clips have at least 3 frames"),
        (["procedural:2", "-o", "x", "--depth", "dust3r", "--geometry", "da3"], "one network at a time"),
        (["procedural:2", "-o", "x", "--geometry-weights", "base"], "--geometry-weights are for --geometry dust3r"),
        (["procedural:2", "-o", "x", "--workers", "0"], "--workers 0"),
        (["procedural:2", "-o", "x", "--device", "gpu"], "--device gpu"),
        (["procedural:2", "-o", "x", "--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["procedural:2", "-o", "x", "--guide", "surface"], "--guide"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_cuda_is_all_gpus_of_the_machine_and_a_number_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert farm._devices("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert farm._devices("cuda:1") == ["cuda:1"]
    assert farm._devices("cpu") == ["cpu"]
    with pytest.raises(UserError, match="cuda:3: this machine has 3 GPUs"):
        farm._devices("cuda:3")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match="cuda: this machine has 0 GPUs"):
        farm._devices("cuda")


def meet(folder: Path, count: int) -> tuple[int, str]:
    """In a worker: wait for the others; its number among processes, and its device."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return os.getpid(), farm._device


@pytest.mark.timeout(180)
def test_workers_take_the_gpus_in_turn_and_again_after_one_died(tmp_path):
    devices = ["cuda:0", "cuda:1", "cuda:2"]
    for life in ("first", "second"):
        (tmp_path / life).mkdir()
        with farm._pool(4, devices) as pool:
            found = dict(future.result() for future in [pool.submit(meet, tmp_path / life, 4) for _ in range(4)])
            assert sorted(found.values()) == ["cuda:0", "cuda:0", "cuda:1", "cuda:2"]
            with pytest.raises(BrokenProcessPool):
                pool.submit(os._exit, 1).result()


@pytest.mark.timeout(180)
def test_scenes_are_made_on_the_devices_of_their_workers(tmp_path, monkeypatch):
    """As the errors of devices that do not exist tell."""
    monkeypatch.setattr(farm, "_devices", lambda device: ["this", "that"])
    pools, real = [], farm._pool
    monkeypatch.setattr(farm, "_pool", lambda workers, devices: pools.append((workers, devices)) or real(*pools[-1]))
    farm.prepare_pairs(["procedural:4"], replace(RECIPE, device="cuda"), tmp_path)
    assert pools == [(2, ["this", "that"])]  # one worker was asked for
    notes = [json.loads(path.read_text())["facts"]["notes"][0] for path in tmp_path.glob("*/procedural*.json")]
    assert len(notes) == 4
    assert all("device" in note and ("this" in note or "that" in note) for note in notes)


def run_apart(sources: str, folder: Path, *more: str) -> subprocess.Popen:
    options = ["--size", "96x64", "--frames", "6", "--workers", "2", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "fvgen", "prepare", sources, "-o", str(folder), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    """Processes below a process, as /proc tells."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found += [int(stat.parent.name), *children(int(stat.parent.name))]
    return found


KILLS = 10


def await_progress(driver: subprocess.Popen, folder: Path, rng: np.random.Generator) -> None:
    """Return while a run is at work: some time after its start, or after one more scene of it was finished."""
    if rng.random() < 0.3:
        time.sleep(float(rng.uniform(0, 4)))
        return
    before = len(hashes(folder))
    while driver.poll() is None and len(hashes(folder)) == before:
        time.sleep(0.02)
    time.sleep(float(rng.uniform(0, 0.5)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ray_address", [None, "local"])
def test_ten_kills_of_workers_and_drivers_lose_and_double_nothing(tmp_path, ray_address):
    if ray_address:
        pytest.importorskip("ray")
    more, rng = (["--ray-address", ray_address] if ray_address else []), np.random.default_rng(0)
    assert run_apart("procedural:40", tmp_path / "calm", *more).wait() == 0
    wanted, folder = hashes(tmp_path / "calm"), tmp_path / "stormy"
    for kill in range(KILLS):
        driver = run_apart("procedural:40", folder, *more)
        await_progress(driver, folder, rng)
        below = children(driver.pid)
        if kill % 2 and below:  # a worker, then the run goes on
            os.kill(int(rng.choice(below)), signal.SIGKILL)
            time.sleep(1)
        assert driver.poll() is None, f"finished before kill {kill + 1}: prepare more scenes"
        os.killpg(driver.pid, signal.SIGKILL)
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        driver.wait()
    assert run_apart("procedural:40", folder, *more).wait() == 0
    assert len(wanted) > 20
    assert hashes(folder) == wanted
    assert (folder / "manifest.json").read_bytes() == (tmp_path / "calm" / "manifest.json").read_bytes()


@pytest.mark.timeout(120)
def test_workers_do_not_outlive_a_killed_driver(tmp_path):
    driver = run_apart("procedural:50", tmp_path / "pairs")
    workers: list[int] = []
    while len(workers) < 3 and driver.poll() is None:  # two workers, and what tracks their resources
        time.sleep(0.2)
        workers = children(driver.pid)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_outlives_its_killed_workers(tmp_path):
    assert run_apart("procedural:6", tmp_path / "calm").wait() == 0
    driver = run_apart("procedural:6", tmp_path / "stormy")
    killed = 0
    while driver.poll() is None and killed < 2:
        time.sleep(6)
        workers = [pid for pid in children(driver.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if workers:
            os.kill(workers[-1], signal.SIGKILL)
            killed += 1
    assert driver.wait() == 0
    assert killed
    assert hashes(tmp_path / "stormy") == hashes(tmp_path / "calm")


def test_ray_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="`ray_address` needs the package ray"):
        prepare_pairs(["procedural:1"], RECIPE, tmp_path, ray_address="auto")
