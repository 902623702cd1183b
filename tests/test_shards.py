"""Training pairs as shards: the bytes, damage, latents, and the commands that show them."""

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from fvgen.cameras import Cameras
from fvgen.cli.main import main
from fvgen.data.h264 import decode_h264, encode_h264
from fvgen.data.latents import LatentCorpus, drawn
from fvgen.data.pairs import Pair, procedural_pair
from fvgen.data.reader import PairShards
from fvgen.data.recipe import ClipDraw
from fvgen.data.samples import DamagedSample, Sample, decode_sample, encode_sample
from fvgen.data.shards import is_finished, write_manifest, write_scene
from fvgen.data.tarball import DamagedTar, scan_tar
from fvgen.errors import UserError
from fvgen.evaluation.metrics import psnr
from fvgen.models import VideoModel, preset

REPOSITORY = Path(__file__).resolve().parent.parent


def noise_pair(seed: int, frames: int = 3, width: int = 32, height: int = 16) -> Pair:
    """A small pair of smooth noise whose first frame is a photograph."""
    rng = np.random.default_rng(seed)
    clip = np.cumsum(rng.integers(-6, 7, (2, frames, height, width, 3)), axis=3) % 256
    clip[1, 0] = clip[0, 0]
    poses = torch.eye(4).repeat(frames, 1, 1)
    poses[:, :3, 3] = torch.from_numpy(rng.standard_normal((frames, 3)))
    intrinsics = torch.tensor([[30.1, 0, 16], [0, 30.3, 8], [0, 0, 1]]).repeat(frames, 1, 1)
    cameras = Cameras(poses, intrinsics, torch.tensor([[width, height]]).repeat(frames, 1))
    coverage = rng.random((frames, height, width)) < 0.7
    photo = np.arange(frames) == 0
    return Pair(clip[0].astype(np.uint8), clip[1].astype(np.uint8), coverage, photo, cameras)


def fill(folder: Path, scenes: int = 5, clips: int = 3) -> Path:
    """A folder of pairs: scenes of one to ``clips`` clips in ``train``, one held out."""
    for k in range(scenes):
        samples = [Sample(f"s{k}-{i}", noise_pair(10 * k + i), {"stride": i + 1}) for i in range(1 + k % clips)]
        write_scene(folder, "train", f"s{k}", samples, {"static": k} if k else {}, {"source": "noise"})
    write_scene(folder, "heldout", "held", [Sample("held-0", noise_pair(99))])
    write_scene(folder, "train", "nothing", [], {"no depth": 2})
    write_manifest(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("pairs"))


def copied(pairs: Path, to: Path) -> Path:
    """The same folder, to be damaged."""
    for path in (p for p in pairs.rglob("*") if p.is_file()):
        (to / path.relative_to(pairs)).parent.mkdir(parents=True, exist_ok=True)
        (to / path.relative_to(pairs)).write_bytes(path.read_bytes())
    return to


def readable(shards: PairShards) -> set[str]:
    """Keys of the samples that can be read."""
    found = set()
    for index, (_, entry) in enumerate(shards.samples):
        with contextlib.suppress(DamagedSample):
            shards.read(index)
            found.add(entry.key)
    return found


@pytest.mark.parametrize(("width", "height"), [(32, 16), (33, 17), (80, 48)])
def test_h264_gives_every_frame_back(width, height):
    frames = noise_pair(1, 7, width, height).frames
    data = encode_h264(frames)
    for k in range(12):
        kept = bytes(1000 * k)  # so that the encoder's memory lies elsewhere
        assert encode_h264(frames) == data, len(kept)
    assert decode_h264(data, 7, width, height).shape == frames.shape
    for wrong in ((6, width, height), (8, width, height), (7, width + 1, height)):
        with pytest.raises(ValueError):
            decode_h264(data, *wrong)


def test_h264_stays_near_real_clips(shared):
    import av

    for name in ("citywalk_01", "quark_01", "see3d_01"):
        with av.open(str(shared / "data" / "clips" / f"{name}.mp4")) as container:
            images = [f.reformat(256, 160, "rgb24").to_ndarray() for f in islice(container.decode(video=0), 24)][::3]
        frames = np.stack(images)
        back = decode_h264(encode_h264(frames), len(frames), 256, 160)
        assert psnr(torch.from_numpy(back) / 255, torch.from_numpy(frames) / 255) > 40


def test_a_pair_comes_back():
    pair = procedural_pair(5, 4, 64, 48)
    blobs = encode_sample(Sample("a-1", pair, {"stride": 2, "from": "ä", "nested": {1: [1, 2]}}))
    back, facts = decode_sample("a-1", blobs)
    assert facts == {"stride": 2, "from": "ä", "nested": {"1": [1, 2]}}
    for name in ("coverage", "photo"):
        assert np.array_equal(getattr(back, name), getattr(pair, name))
    for name in ("world_from_camera", "intrinsics", "sizes"):
        assert torch.equal(getattr(back.cameras, name), getattr(pair.cameras, name))
    assert np.array_equal(back.guide[back.photo], back.frames[back.photo])
    assert not np.array_equal(back.guide[~back.photo], back.frames[~back.photo])
    for ours, theirs in ((back.frames, pair.frames), (back.guide, pair.guide)):
        assert psnr(torch.from_numpy(ours) / 255, torch.from_numpy(theirs) / 255) > 36


@pytest.mark.parametrize("name", ["clip.mp4", "guide.mp4", "coverage.npz", "json"])
def test_any_flipped_bit_of_a_sample_is_seen(name):
    blobs = encode_sample(Sample("k", noise_pair(0)))
    rng = np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(blobs[name])
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(DamagedSample):
            decode_sample("k", {**blobs, name: bytes(data)})


def test_pairs_that_do_not_fit_together_are_refused():
    pair = noise_pair(0)
    for wrong in (replace(pair, guide=pair.guide[:2]), replace(pair, cameras=pair.cameras[:1])):
        with pytest.raises(ValueError, match="do not fit together"):
            encode_sample(Sample("k", wrong))
    with pytest.raises(ValueError):
        encode_sample(Sample("k", pair, {"psnr": float("nan")}))
    with pytest.raises(ValueError):
        Sample("../k", pair)


def test_a_scene_has_the_same_bytes_whenever_it_is_written(pairs, tmp_path):
    fill(tmp_path)
    names = sorted(str(p.relative_to(pairs)) for p in pairs.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    for name in names:
        assert (pairs / name).read_bytes() == (tmp_path / name).read_bytes(), name
    manifest = json.loads((pairs / "manifest.json").read_text())
    assert manifest["dropped"] == {"no depth": 2, "static": 10}
    for shard in manifest["shards"]:
        tar = pairs / shard["split"] / f"{shard['scene']}.tar"
        assert shard["tar"] == {
            "bytes": tar.stat().st_size,
            "sha256": hashlib.sha256(tar.read_bytes()).hexdigest(),
        }
    backwards = [Sample(f"s2-{i}", noise_pair(20 + i), {"stride": i + 1}) for i in (2, 0, 1)]
    write_scene(tmp_path / "other", "train", "s2", backwards, {"static": 2}, {"source": "noise"})
    assert (tmp_path / "other/train/s2.tar").read_bytes() == (pairs / "train/s2.tar").read_bytes()


def test_a_scene_belongs_to_one_split(pairs, tmp_path):
    folder = copied(pairs, tmp_path)
    with pytest.raises(UserError, match="cannot be in 'heldout'"):
        write_scene(folder, "heldout", "s1", [])
    (folder / "heldout" / "s1.tar").write_bytes((folder / "train" / "s1.tar").read_bytes())
    with pytest.raises(UserError, match="both splits"):
        write_manifest(folder)


def test_a_scene_written_again_replaces_the_old_one(tmp_path):
    write_scene(tmp_path, "train", "a", [Sample("a-0", noise_pair(0))])
    assert is_finished(tmp_path, "train", "a")
    write_scene(tmp_path, "train", "a", [], {"static": 1})
    assert is_finished(tmp_path, "train", "a")
    assert not (tmp_path / "train" / "a.tar").exists()
    assert len(PairShards(tmp_path)) == 0


def test_plain_tar_tools_and_webdataset_read_it(pairs):
    with tarfile.open(pairs / "train" / "s2.tar") as tar:
        names = tar.getnames()
        assert names == sorted(names)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}
    listed = subprocess.run(["tar", "tf", str(pairs / "train" / "s2.tar")], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == names
    webdataset = pytest.importorskip("webdataset")
    found = list(webdataset.WebDataset(str(pairs / "train" / "s2.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in found] == ["s2-0", "s2-1", "s2-2"]
    assert json.loads(found[1]["json"])["facts"] == {"stride": 2}
    assert decode_h264(found[1]["clip.mp4"], 3, 32, 16).shape == (3, 16, 32, 3)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_shards import Sample, noise_pair, write_scene
k = 0
print("ready", flush=True)
while True:
    write_scene(Path(sys.argv[1]), "train", f"s{k % 7}", [Sample(f"s{k % 7}-{i}", noise_pair(i)) for i in range(2)])
    k += 1
"""


def test_killing_a_writer_leaves_no_half_tar(tmp_path):
    for delay in (0.0, 0.02, 0.05, 0.11):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(REPOSITORY / "tests")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        shards = PairShards(tmp_path)
        assert shards.damaged == {}
        for index in range(len(shards)):
            shards.read(index)
        assert all(scan_tar(path)[1] == "" for path in (tmp_path / "train").glob("*.tar"))
    for k in range(7):
        write_scene(tmp_path, "train", f"s{k}", [Sample(f"s{k}-0", noise_pair(0))])
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("known", [True, False], ids=["listed", "unlisted"])
def test_a_tar_cut_off_anywhere_gives_its_whole_samples(pairs, tmp_path, known):
    folder = copied(pairs, tmp_path)
    tar = folder / "train" / "s2.tar"
    data = tar.read_bytes()
    if not known:
        (folder / "manifest.json").unlink()
        (folder / "train" / "s2.json").unlink()
    whole = {entry.key: max(o + n for o, n in entry.members.values()) for _, entry in PairShards(pairs).samples}
    ends = -(-max(end for key, end in whole.items() if key.startswith("s2")) // 512) * 512
    rng = np.random.default_rng(0)
    for cut in [0, 1, 511, 512, *rng.integers(len(data), size=12).tolist()]:
        tar.write_bytes(data[:cut])
        shards = PairShards(folder)
        expected = {key for key, end in whole.items() if not key.startswith("s2") or end <= cut}
        assert {entry.key for _, entry in shards.samples} == expected
        if known or cut < ends + 512:  # else only empty blocks after the last member are gone
            assert any(name.startswith("train/s2.tar") for name in shards.damaged)
        assert readable(shards) == expected


def test_flipped_bytes_are_passed_over_and_counted(pairs, tmp_path):
    folder = copied(pairs, tmp_path)
    tar = folder / "train" / "s2.tar"
    data, rng, total = tar.read_bytes(), np.random.default_rng(1), len(PairShards(pairs))
    for _ in range(15):
        changed = bytearray(data)
        for place in rng.integers(len(data) - 10240, size=3):
            changed[place] ^= 255
        tar.write_bytes(changed)
        shards = PairShards(folder)
        found = readable(shards)
        lost = {name for name in shards.damaged if name.startswith("train/s2.tar:")}
        assert len(found) == total - len(lost)
    assert main(["data", str(folder), "--check"]) == 2


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A tar with one member."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, link, 0 if link else 3
        tar.addfile(member, None if link else io.BytesIO(b"abc"))
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        hostile("../evil.json"),
        hostile("/etc/evil.json"),
        hostile("a/../../evil.json"),
        hostile("evil.json", tarfile.SYMTYPE, "/etc/passwd"),
        hostile("evil.json", tarfile.LNKTYPE, "../../secret"),
        hostile("evil.json", tarfile.CHRTYPE),
    ],
    ids=["parent", "absolute", "inside", "symlink", "hardlink", "device"],
)
def test_tars_that_reach_out_are_refused_whole(pairs, tmp_path, data):
    folder = copied(pairs, tmp_path / "pairs")
    (folder / "train" / "evil.tar").write_bytes(
        data.rstrip(b"\0").ljust(1024, b"\0") + (pairs / "train/s1.tar").read_bytes()
    )
    with pytest.raises(DamagedTar, match="refused"):
        scan_tar(folder / "train" / "evil.tar")
    shards = PairShards(folder)
    assert len(shards) == len(PairShards(pairs))
    assert "refused" in shards.damaged["train/evil.tar"]
    write_manifest(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "shards": [{"split": "train"}]}', "[" * 100000]
)
def test_wrong_json_falls_back_on_the_tars(pairs, tmp_path, text):
    folder = copied(pairs, tmp_path)
    (folder / "manifest.json").write_text(text)
    (folder / "train" / "s1.json").write_text(text)
    shards = PairShards(folder)
    assert "manifest.json" in shards.damaged
    assert len(shards) == len(PairShards(pairs))
    assert not is_finished(folder, "train", "s1")
    assert len(readable(shards)) == len(shards)
    write_manifest(folder)
    assert PairShards(folder).damaged == {}


def test_a_manifest_cannot_point_elsewhere(pairs, tmp_path):
    folder = copied(pairs, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    for change in ({"scene": "../../etc/x"}, {"split": ".."}):
        wrong = {**manifest, "shards": [{**manifest["shards"][-1], **change}]}
        (folder / "manifest.json").write_text(json.dumps(wrong))
        assert len(PairShards(folder)) == len(PairShards(pairs))
    shard = next(s for s in manifest["shards"] if s["scene"] == "s1")
    shard["samples"][0]["members"]["json"] = [-512, 10**15]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shards = PairShards(folder)
    assert len(readable(shards)) == len(shards) - 1
    assert len(shards.damaged) == 1


@pytest.fixture(scope="module")
def model() -> VideoModel:
    torch.manual_seed(0)
    return VideoModel.build(preset("mini-xs")).eval()


def test_latents_come_from_the_cache_and_need_little_memory(pairs, tmp_path, model):
    folder = copied(pairs, tmp_path)
    whole = LatentCorpus(folder, model)
    assert whole.refresh() == len(PairShards(folder))
    assert whole.held == ["held/held-0"]
    stamps = {path: path.stat().st_mtime_ns for path in whole.cached_in.rglob("*.safetensors")}
    small = LatentCorpus(folder, model, memory_gb=3e-5)
    small.refresh()
    assert {path: path.stat().st_mtime_ns for path in whole.cached_in.rglob("*.safetensors")} == stamps
    for seed in range(20):
        one, two = (c.sample((seed,), range(3), ClipDraw(frames=3, crop=(2, 4))) for c in (whole, small))
        assert torch.equal(one.latents, two.latents)
        assert torch.equal(one.concat, two.concat)
        assert small._memory.used <= 30_000
    assert whole.held_batch("held/held-0", 2).latents.shape[2] == 2


def test_latents_drawn_from_the_posterior_spread_as_it_does(pairs, tmp_path, model):
    """Where guides are sampled in use (ViewCrafter), training draws truth and guide from their posteriors too."""
    folder = copied(pairs, tmp_path)
    sampled = VideoModel(
        replace(model.config, sampling=replace(model.config.sampling, sample_guide=True)),
        model.autoencoder,
        model.conditioner,
        model.denoiser,
    )
    clip, mean = (LatentCorpus(folder, m) for m in (sampled, model))
    clip.refresh(), mean.refresh()
    spread, still = clip.clip("held/held-0"), mean.clip("held/held-0")
    assert spread.deviation is not None
    assert spread.guide_deviation is not None
    assert still.deviation is None
    draws = [drawn(np.random.default_rng(seed), spread) for seed in range(60)]
    channels = len(spread.latents)
    for name, deviation in (("latents", spread.deviation), ("concat", spread.guide_deviation)):
        errors = torch.stack([(getattr(d, name) - getattr(still, name).float())[:channels].square() for d in draws])
        assert abs(float(errors.mean() / deviation.float().square().mean()) - 1) < 0.1
    assert torch.equal(drawn(np.random.default_rng(0), still).latents, still.latents)


def test_latents_of_a_scene_made_anew_are_computed_anew(tmp_path, model):
    write_scene(tmp_path, "train", "a", [Sample("a-0", noise_pair(0))])
    corpus = LatentCorpus(tmp_path, model)
    corpus.refresh()
    before = corpus.clip("a/a-0").latents
    write_scene(tmp_path, "train", "a", [Sample("a-0", noise_pair(1))])
    write_scene(tmp_path, "train", "b", [Sample("b-0", noise_pair(2)), Sample("b-1", noise_pair(3))])
    again = LatentCorpus(tmp_path, model)
    assert again.refresh(limit=1) == 1
    assert again.refresh(limit=1) == 3
    assert not torch.equal(again.clip("a/a-0").latents, before)
    (tmp_path / "train" / "b.tar").write_bytes((tmp_path / "train" / "b.tar").read_bytes()[:-12000])
    cut = LatentCorpus(tmp_path, model)
    assert cut.refresh() == 2
    assert any(name.startswith("train/b.tar") for name in cut.damaged)


def test_data_shows_a_folder(pairs, tmp_path, capsys, model):
    folder = copied(pairs, tmp_path / "pairs")
    model.save(tmp_path / "model", torch.float32)
    sheet = tmp_path / "sheet.png"
    arguments = [
        "data",
        str(folder),
        "--sheet",
        str(sheet),
        "--clips",
        "5",
        "--check",
        "--latents",
        str(tmp_path / "model"),
    ]
    assert main([*arguments, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "train: 9 clips of 5 scenes, 27 frames" in shown
    assert "heldout: 1 clips of 1 scenes" in shown
    assert "dropped: 10 x static" in shown
    assert re.search(r"stride\n +1 \|#+ 5\n +2 \|#+ 3\n +3 \|#+ 1\n", shown)
    assert "latents of 10 clips" in shown
    assert "everything can be read" in shown
    from PIL import Image

    with Image.open(sheet) as picture:
        assert min(picture.size) > 500
    assert main(["data", str(tmp_path / "model")]) == 2


def test_benchmark_measures_reading(pairs, tmp_path, capsys):
    output = tmp_path / "speed.json"
    arguments = ["--workers", "1", "--seconds", "0.3", "--appetite", "2.5", "--output", str(output)]
    assert main(["benchmark", "data", str(pairs), *arguments]) == 0
    found = json.loads(output.read_text())
    assert found["rows"][0]["clips_per_second"] > 5
    assert "of the appetite" in capsys.readouterr().out
    assert main(["benchmark", "data", str(tmp_path)]) == 2
    assert main(["benchmark", "data", str(pairs), "--training", str(tmp_path)]) == 2
    assert main(["benchmark", "data", str(pairs), "--output", str(tmp_path)]) == 2
    damaged = copied(pairs, tmp_path / "damaged")
    manifest = json.loads((damaged / "manifest.json").read_text())
    for sample in (sample for shard in manifest["shards"] for sample in shard["samples"]):
        sample["members"]["json"] = [-512, 10**15]
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    assert len(PairShards(damaged)) == len(PairShards(pairs))
    assert main(["benchmark", "data", str(damaged), "--workers", "1", "--seconds", "0.2"]) == 2
    assert "none of the training pairs can be read" in capsys.readouterr().err


def test_what_training_uses_up_is_read_from_its_run(pairs, tmp_path, model, capsys):
    model.save(tmp_path / "model", torch.float32)
    data, run, output = copied(pairs, tmp_path / "pairs"), tmp_path / "run", tmp_path / "speed.json"
    places = ["--model", str(tmp_path / "model"), "--data", str(data), "--output", str(run)]
    numbers = ["--steps", "3", "--batch", "2", "--frames", "3", "--held-every", "0", "--full-from", "1"]
    train = ["train", "teacher", *places, *numbers]
    assert main([*train, "--crop", "2", "4"]) == 2
    assert "--crop 2 4: both must be multiples of 4 latents" in capsys.readouterr().err
    assert main([*train, "--crop", "4", "8"]) == 0
    command = ["benchmark", "data", str(data), "--training", str(run), "--seconds", "0.2"]
    assert main([*command, "--output", str(output)]) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    seconds = (lines[-1]["seconds"] - lines[0]["seconds"]) / (lines[-1]["step"] - lines[0]["step"])
    assert json.loads(output.read_text())["appetite_clips_per_second"] == pytest.approx(2 / seconds)


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "data.md").read_text(), re.DOTALL)
    exec("\n".join(example), {"__name__": "example"})
    assert "room-5 [True, False, False, True]" in capsys.readouterr().out
