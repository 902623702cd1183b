"""Systems that frame the photographs differently: what all show is scored, no system at a disadvantage."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, max_pool2d

from fvgen.cameras import Cameras
from fvgen.cli.main import main
from fvgen.errors import UserError
from fvgen.evaluation.datasets import find_scenes
from fvgen.evaluation.protocols import Split
from fvgen.evaluation.task import Framing, Placing, Task
from scene_copies import Copy, write_index_file

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"
ASKED = (1, 2, 4)
LANCZOS = Image.Resampling.LANCZOS
OURS, THEIRS = Framing((512, 320)), Framing((448, 256), (480, 270))


def pixel_centers(width: int, height: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y], -1)


def photographs(width: int, height: int, count: int = 1) -> Cameras:
    k = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(torch.eye(4).repeat(count, 1, 1), k.repeat(count, 1, 1), torch.tensor([[width, height]] * count))


def test_what_is_common_in_closed_form() -> None:
    """Photographs of 16:9 lose more of their width at 512x320, more of their height at 448x256 out of 480x270."""
    wide = photographs(1920, 1080)
    found = Framing.common([OURS, THEIRS], wide)
    assert found == Framing((432, 256), (480, 270), (24, 7))  # 1728 of 1920, 1024 of 1080; 4 pixels each
    assert found.cameras(wide)[1] == [(96, 28, 1824, 1052)]
    assert THEIRS.windows(found, wide) == [(8, 0, 440, 256)]
    ((left, top, right, bottom),) = OURS.windows(found, wide)
    assert (left, right) == (0, 512)
    assert (top, bottom) == pytest.approx((28 * 320 / 1080, 1052 * 320 / 1080), abs=1e-6)
    # Of 3:2, both keep the whole width first: theirs lies within ours, and is not even cut.
    assert Framing.common([OURS, THEIRS], photographs(1500, 1000)) == THEIRS
    # Portrait photographs: everything turned.
    turned = [framing.turned(False) for framing in (OURS, THEIRS)]
    assert Framing.common(turned, photographs(1080, 1920)) == found.turned(False)
    assert found.turned(False).corner == (7, 24)
    assert OURS.turned(False) == Framing((320, 512))


def test_a_camera_of_what_is_common_shows_its_box() -> None:
    wide = photographs(1920, 1080)
    found = Framing.common([OURS, THEIRS], wide)
    cameras, (box,) = found.cameras(wide)
    assert cameras.size == (432, 256)
    scale = 432 / (box[2] - box[0])
    expected = wide.intrinsics[0].clone()
    expected[0, 2] -= box[0]
    expected[1, 2] -= box[1]
    expected[:2] *= scale
    torch.testing.assert_close(cameras.intrinsics[0], expected)


def test_photographs_of_several_shapes_have_one_common_size() -> None:
    cameras = Cameras.concatenate([photographs(1920, 1080), photographs(1920, 1076)])
    found = Framing.common([OURS, THEIRS], cameras)
    for camera in (cameras[0], cameras[1]):
        alone = Framing.common([OURS, THEIRS], camera)
        assert found.size[0] <= alone.size[0]
        assert found.size[1] <= alone.size[1]
    for framing in (OURS, THEIRS):
        for left, top, right, bottom in framing.windows(found, cameras):
            assert left >= 0
            assert top >= 0
            assert right <= framing.size[0]
            assert bottom <= framing.size[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("448", "write WIDTHxHEIGHT"),
        ("448x256/", "write WIDTHxHEIGHT"),
        ("448x40", "pictures of 64x64 at least are scored"),
        ("448x256/480x250", "448x256 cannot be cut out of 480x250"),
    ],
)
def test_wrong_framings(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Framing.parse(text)


def test_framings_are_read() -> None:
    assert Framing.parse("448x256/480x270") == THEIRS
    assert Framing.parse("512x320") == OURS == Framing.parse("512x320/512x320")
    with pytest.raises(UserError, match="too little in common to be scored: 64x32"):
        Framing.common([Framing((512, 64)), Framing((64, 128))], photographs(640, 320))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 640x360, and its true frames made small as others do: whole pictures scaled, then cut."""
    place = tmp_path_factory.mktemp("crop")
    copy = Copy(DEMO, 21, 640)
    copy.pictures = [picture.crop((0, 20, 640, 380)) for picture in copy.pictures]
    copy.cameras, copy.size = copy.cameras.cropped(0, 20, 640, 360), (640, 360)
    copy.nerfstudio(place / "study")
    write_index_file(place / "index.json", {"study": {"context": [0, 5], "target": [*ASKED]}})
    for shift in (0, 1):
        save(place / f"theirs{shift}", copy, (480, 270), (16 + shift, 7, 464 + shift, 263))
    save(place / "large", copy, (1280, 720), (0, 0, 1280, 720))
    save(place / "own", copy, (569, 320), (28, 0, 540, 320))  # half a pixel off: whole widths cannot do better
    return place


def save(folder: Path, copy: Copy, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    (folder / "study").mkdir(parents=True)
    for i in ASKED:
        copy.pictures[i].resize(size, LANCZOS).crop(box).save(folder / "study" / f"{i:05d}.png")


def run(place: Path, out: str, *frames: str, more: tuple[str, ...] = ()) -> int:
    arguments = ["evaluate", str(place / "study"), "--index", str(place / "index.json"), "--size", "512x320"]
    arguments += ["--models", *(more or ("none",)), "--baselines", "--metrics", "psnr", "ssim_torchmetrics"]
    return main([*arguments, *(["--frames", *frames] if frames else []), "-o", str(place / out)])


def results(place: Path, out: str) -> dict[str, Any]:
    return json.loads((place / out / "results.json").read_text())


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    frames = [f"{name}={place / name}@448x256/480x270" for name in ("theirs0", "theirs1")]
    assert run(place, "out", *frames, f"large={place / 'large'}@1280x720") == 0
    return results(place, "out")


def test_true_frames_of_every_framing_score_as_true(found: dict[str, Any]) -> None:
    psnr = {name: row["mean"]["psnr"] for name, row in found["datasets"]["scenes"].items()}
    assert psnr["theirs0"] > 60  # nothing but rounding
    assert psnr["large"] > 40  # resampled twice
    assert psnr["theirs1"] < psnr["large"] - 15  # one pixel aside
    assert 15 < psnr["none"] < psnr["large"]


def test_the_results_say_what_was_scored_and_who_was_resampled(place: Path, found: dict[str, Any]) -> None:
    common = found["pictures"]["common_crop"]
    assert found["pictures"]["size"] == [512, 320]
    assert common["sizes"] == ["432x256"]
    assert common["resampled"] == ["large", "none"]
    assert common["only_cut"] == ["theirs0", "theirs1"]
    assert "448x256 cut from the centre" in common["declared"]["theirs0"]
    record = found["splits"]["study"]
    assert record["size"] == [432, 256]
    assert record["crop"] == "scaled to cover 480x270 (Lanczos), 432x256 cut at 24, 7 unscaled"
    text = (place / "out" / "table.md").read_text()
    assert "432x256 (what all systems show; ours made at 512x320; large, none resampled)" in text
    page = (place / "out" / "index.html").read_text()
    assert "<b>432x256</b>" in page
    assert "432x256 cut at 24, 7" in page


def test_what_is_scored_lies_in_the_folder(place: Path, found: dict[str, Any]) -> None:
    """The truth is the photograph's part at once; theirs is cut without resampling; ours was made whole."""
    frame = "frame_00003.png"
    photo = Image.open(place / "study" / "images" / frame)
    truth, theirs = (
        np.asarray(Image.open(place / "out" / "frames" / s / "study" / frame)) for s in ("truth", "theirs0")
    )
    whole = np.asarray(photo.resize((480, 270), LANCZOS))
    assert np.array_equal(theirs, whole[7:263, 24:456])
    assert np.abs(truth.astype(int) - whole[7:263, 24:456]).max() <= 1
    made = Image.open(place / "out" / "made" / "none" / "study" / frame)
    assert made.size == (512, 320)
    window = (0, 28 * 320 / 1080, 512, 1052 * 320 / 1080)
    shown = Image.open(place / "out" / "frames" / "none" / "study" / frame)
    assert np.array_equal(np.asarray(made.resize((432, 256), LANCZOS, box=window)), np.asarray(shown))
    assert not (place / "out" / "made" / "theirs0").exists()


def test_the_guide_is_that_of_the_scored_part(place: Path, found: dict[str, Any]) -> None:
    """True frames are as calm as the truth, and coverage is that of the guide that was shown."""
    rows = found["splits"]["study"]["systems"]
    assert [v for v in rows["theirs0"]["frames"]["flicker"] if v is not None] == pytest.approx([1, 1], abs=0.005)
    assert rows["none"]["mean"]["psnr_covered"] > rows["none"]["mean"]["psnr_holes"]
    (scene,) = find_scenes(place / "study")
    split = Split("study", "study", [0, 5], [*ASKED])
    whole, part = (Task(split, scene, OURS, Placing(), others) for others in ((), (THEIRS,)))
    assert part.geometry.coverage.shape == (3, 256, 432)
    shown = whole.geometry.coverage[:, None].float()
    some, none = (sign * max_pool2d(sign * shown, 3, 1, 1) for sign in (1, -1))  # among each pixel and its neighbours
    some, none = (interpolate(v[:, :, 8:312], (256, 432))[:, 0] for v in (some, none))
    alike = some == none
    assert torch.equal(part.geometry.coverage[alike], some[alike] > 0)
    assert 0.2 < alike.float().mean() < 1
    # Neighbours: what is seen in both lies as far apart as in the whole guide, smaller.
    step = part.geometry.matches.positions - pixel_centers(432, 256)
    larger = whole.geometry.matches.positions - pixel_centers(512, 320)
    moved = step[part.geometry.matches.seen].median(0).values, larger[whole.geometry.matches.seen].median(0).values
    assert (moved[0] - moved[1] * 432 / 512).abs().max() < 0.5
    assert part.cameras.size == part.path.cameras.size == (512, 320)


def test_frames_are_kept_from_run_to_run(place: Path, found: dict[str, Any]) -> None:
    """A model's frames are made once, whichever part of them is scored; what is scored follows what is declared."""
    assert run(place, "out") == 0  # without the others: whole frames again
    alone = results(place, "out")
    kept, again = (r["splits"]["study"]["systems"]["none"] for r in (found, alone))
    assert kept["seconds"] == again["seconds"]
    assert kept["made_sha256"] == again["made_sha256"] == again["frames_sha256"]
    assert alone["pictures"]["common_crop"] is None
    assert alone["splits"]["study"]["size"] == [512, 320]
    assert run(place, "fresh") == 0
    fresh = results(place, "fresh")["splits"]["study"]
    assert fresh["systems"]["none"]["frames"] == again["frames"]
    assert fresh["truth_sha256"] == alone["splits"]["study"]["truth_sha256"]
    frames = [f"{name}={place / name}@448x256/480x270" for name in ("theirs0", "theirs1")]
    frames.append(f"large={place / 'large'}@1280x720")
    assert run(place, "out", *frames) == 0
    back = results(place, "out")
    assert back["datasets"]["scenes"]["none"]["mean"] == found["datasets"]["scenes"]["none"]["mean"]
    assert back["splits"]["study"]["truth_sha256"] == found["splits"]["study"]["truth_sha256"]
    before = {p: p.stat().st_mtime_ns for part in ("frames", "made") for p in (place / "out" / part).rglob("*.png")}
    assert run(place, "out", *frames) == 0
    assert results(place, "out") == back
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_declared_size_that_is_ours_changes_nothing(place: Path) -> None:
    shutil.copytree(place / "own", place / "own2")
    assert run(place, "same", f"a={place / 'own'}", f"b={place / 'own2'}@512x320") == 0
    same = results(place, "same")
    assert same["pictures"]["common_crop"] is None
    a, b = (same["splits"]["study"]["systems"][name] for name in "ab")
    assert a["frames"] == b["frames"]
    assert not (place / "same" / "made").exists()


def test_undeclared_sizes_are_refused_with_what_to_write(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "refused", f"x={place / 'theirs0'}") == 2
    error = capsys.readouterr().err
    assert "448x256 pixels, not 512x320" in error
    assert "--frames NAME=FOLDER@448x256[/WIDTHxHEIGHT scaled to cover]" in error
    assert run(place, "refused", f"x={place / 'theirs0'}@440x256") == 2
    assert "448x256 pixels, not 440x256" in capsys.readouterr().err
    assert run(place, "refused", f"x={place / 'theirs0'}@448x256/100x100") == 2
    assert "cannot be cut out of 100x100" in capsys.readouterr().err


def test_seconds_are_told_beside_the_frames(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "own" / "seconds.json"
    path.write_text(json.dumps({"study": 87.25}))
    assert run(place, "told", f"own={place / 'own'}") == 0
    told = results(place, "told")
    assert told["datasets"]["scenes"]["own"]["seconds"] == 87.25
    assert told["systems"]["own"]["seconds_from"] == "seconds.json"
    assert told["splits"]["study"]["systems"]["own"]["seconds"] == {"told": 87.25}
    text = (place / "told" / "table.md").read_text()
    assert "87.25" in text
    assert "of own as told beside the frames" in text
    path.write_text(json.dumps({"study": 12}))  # told otherwise: told so, nothing else is made again
    assert run(place, "told", f"own={place / 'own'}") == 0
    again = results(place, "told")
    assert again["datasets"]["scenes"]["own"]["seconds"] == 12
    assert again["splits"]["study"]["systems"]["none"] == told["splits"]["study"]["systems"]["none"]
    for content, message in (
        ('{"study": 0}', "study: 0 is no number of seconds above 0"),
        ('{"study": "1"}', 'study: "1" is no number of seconds above 0'),
        ('{"study": true}', "study: true is no number"),
        ('{"study": Infinity}', "is no number of seconds above 0"),
        ('{"other": 1}', "tells the seconds of other and others, but not of study"),
        ("[]", 'expected {"SPLIT or SCENE": seconds, ...}'),
        ("{", "cannot be read as JSON"),
    ):
        path.write_text(content)
        assert run(place, "told", f"own={place / 'own'}") == 2
        error = capsys.readouterr().err
        assert "seconds.json" in error
        assert message in error
    path.unlink()
