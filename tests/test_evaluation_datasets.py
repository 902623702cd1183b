"""Layouts of data sets, on small copies of a real scene; frames of outside systems."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.cli.main import main
from fvgen.errors import UserError
from fvgen.evaluation.datasets import EvaluationScene, find_scenes, join_cameras
from fvgen.evaluation.protocols import Split, find_protocol
from fvgen.evaluation.store import read_frames
from fvgen.evaluation.task import Placing, Task
from fvgen.scene.formats.transforms_json import read_transforms_json
from fvgen.scene.layouts import Stored
from scene_copies import Copy, same_cameras

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"


@pytest.fixture(scope="module")
def copy() -> Copy:
    return Copy(DEMO, 9)


@pytest.fixture(scope="module")
def real(shared: Path) -> Copy:
    return Copy(shared / "data" / "scenes" / "redkitchen", 9)


@pytest.fixture(params=["demo", "redkitchen"])
def scene(request: pytest.FixtureRequest) -> Copy:
    """Our own scene everywhere, and a real one where it is there."""
    return request.getfixturevalue("copy" if request.param == "demo" else "real")


def check(found: EvaluationScene, copy: Copy, factor: float = 1, tolerance: float = 1e-6) -> None:
    """All frames in order, cameras and pictures that belong together."""
    assert len(found) == len(copy.pictures)
    shots = [found.read(i) for i in range(len(found))]
    width, height = round(copy.size[0] / factor), round(copy.size[1] / factor)
    same_cameras(join_cameras(shots), copy.cameras.resized(width, height), tolerance)
    torch.testing.assert_close(found.centers, copy.cameras.centers, atol=1e-6, rtol=0)
    for shot, picture in zip(shots, copy.pictures):
        truth = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
        assert np.abs(shot.image.numpy().astype(int) - truth).mean() < 6  # JPEG where the layout has it


def test_nerfstudio(tmp_path: Path, scene: Copy) -> None:
    scene.nerfstudio(tmp_path / "garden" / "scene")
    (found,) = find_scenes(tmp_path / "garden")
    assert (found.name, found.layout, found.dataset) == ("scene", "nerfstudio", "scenes")
    check(found, scene)
    assert found.frames[0].name == "frame_00001"


def test_dl3dv(tmp_path: Path, scene: Copy) -> None:
    """Intrinsics are at the film's size; the smallest pictures that cover the wanted size are read."""
    for name in ("032dee9f", "0569e83f"):
        scene.dl3dv(tmp_path / name)
    width, height = scene.size
    half = (width // 2, height // 2)  # of images_8
    first, second = find_scenes(tmp_path, wanted=Stored(half))
    assert (first.name, second.name, first.layout, first.dataset) == ("032dee9f", "0569e83f", "dl3dv", "DL3DV")
    check(first, scene, 2)
    for wanted, pictures in (
        (Stored(half), "images_8"),
        (Stored((half[0], half[1] + 4)), "images_4"),
        (Stored((10 * width, 10 * height)), "images_4"),  # none is large enough: the largest
        (Stored(half, "images_4"), "images_4"),
        (Stored(half[::-1]), "images_4"),
        (Stored(), "images_4"),
    ):
        found = find_scenes(tmp_path, wanted=wanted)[0]
        assert (found.pictures, found.frames[0].image.parent.name) == (pictures, pictures)
    (tmp_path / "032dee9f" / "nerfstudio" / "images_8" / "frame_00003.png").unlink()  # not all pictures are there
    assert [found.pictures for found in find_scenes(tmp_path, wanted=Stored(half))] == ["images_4", "images_8"]
    with pytest.raises(UserError, match="there is no folder images_2 of pictures"):
        find_scenes(tmp_path, wanted=Stored(half, "images_2"))


def test_portrait_pictures_cover_a_turned_size() -> None:
    assert Stored((512, 320), turns=True).covers((540, 960))
    assert not Stored((512, 320)).covers((319, 960))
    assert not Stored((512, 320), turns=True).covers((480, 270))
    assert Stored((480, 270)).covers((480, 268))  # a rounded pixel is no reason for pictures of four times the size


@pytest.mark.parametrize(("name", "factor"), [("room", 2), ("garden", 4)])
def test_mipnerf360(tmp_path: Path, scene: Copy, name: str, factor: int) -> None:
    """Indoor scenes on images_2, outdoor ones on images_4, in the order of names, not of the model."""
    other = {2: 4, 4: 2}[factor]
    folder = scene.colmap(tmp_path / "360" / name, {f"images_{factor}": 1, f"images_{other}": 1.5}, factor)
    (found,) = find_scenes(tmp_path / "360")
    assert (found.name, found.layout, found.dataset) == (name, "mipnerf360", "mip-360")
    check(found, scene)
    assert find_scenes(tmp_path / "360", wanted=Stored((16, 16)))[0].pictures == f"images_{factor}"
    assert find_scenes(tmp_path / "360", wanted=Stored(None, f"images_{other}"))[0].pictures == f"images_{other}"
    assert [f.name for f in found.frames] == [f"DSC{i + 8000:05d}" for i in range(9)]
    for picture in (folder / f"images_{factor}").iterdir():
        picture.unlink()
    (folder / f"images_{factor}").rmdir()
    with pytest.raises(UserError, match=f"scored on images_{factor}, which is not there"):
        find_scenes(tmp_path / "360")


def test_tanks_and_temples_of_3dgs(tmp_path: Path, scene: Copy) -> None:
    """The model is at another size than the pictures, as it was published."""
    scene.colmap(tmp_path / "tandt" / "truck", {"images": 1}, 2, ".jpg")
    (found,) = find_scenes(tmp_path / "tandt")
    assert (found.layout, found.dataset) == ("tanks-3dgs", "TNT")
    check(found, scene)


def test_tanks_and_temples_of_nerfpp(tmp_path: Path, scene: Copy) -> None:
    scene.nerfpp(tmp_path / "tat_training_Truck")
    (found,) = find_scenes(tmp_path)
    assert (found.name, found.layout, found.dataset) == ("tat_training_Truck", "tanks-nerfpp", "TNT")
    check(found, scene)
    (split,) = find_protocol("own-split").splits(found)
    assert split.target == [0, 4, 8]
    assert split.context == [1, 2, 3, 5, 6, 7]
    with pytest.raises(UserError, match="keeps pictures in one size; leave `images` images_4 out"):
        find_scenes(tmp_path, wanted=Stored(None, "images_4"))


def test_tanks_and_temples_of_fvs(tmp_path: Path, scene: Copy) -> None:
    folder = scene.fvs(tmp_path / "Truck")
    (found,) = find_scenes(folder)
    assert (found.layout, found.dataset) == ("tanks-fvs", "TNT")
    check(found, scene)
    with pytest.raises(UserError, match="does not say which frames are for training"):
        find_protocol("own-split").splits(found)


def test_colmap(tmp_path: Path, scene: Copy) -> None:
    scene.colmap(tmp_path / "mine", {"images": 1})
    (found,) = find_scenes(tmp_path / "mine", dataset="holiday")
    assert (found.name, found.layout, found.dataset) == ("mine", "colmap", "holiday")
    check(found, scene)
    scene.save(tmp_path / "mine" / "images_2", [path.name for path in sorted((tmp_path / "mine/images").iterdir())], 2)
    half = (scene.size[0] // 2, scene.size[1] // 2)
    for wanted, pictures, factor in ((Stored(half), "images_2", 2), (Stored(scene.size), "images", 1)):
        (found,) = find_scenes(tmp_path / "mine", wanted=wanted)
        assert found.pictures == pictures
        check(found, scene, factor)


def test_equal_names_in_several_folders_are_told_apart(tmp_path: Path, copy: Copy) -> None:
    path = copy.nerfstudio(tmp_path / "rig") / "transforms.json"
    for i, side in ((0, "left"), (1, "right")):
        (tmp_path / "rig" / side).mkdir()
        (tmp_path / "rig" / "images" / f"frame_{i + 1:05d}.png").rename(tmp_path / "rig" / side / "0.png")
        path.write_text(path.read_text().replace(f"images/frame_{i + 1:05d}.png", f"{side}/0.png"))
    names = [frame.name for frame in find_scenes(tmp_path / "rig")[0].frames]
    assert [names[0], *names[-2:]] == ["images_frame_00003", "left_0", "right_0"]


def test_blender_scenes_have_a_train_and_a_test_part(tmp_path: Path, copy: Copy) -> None:
    path = copy.nerfstudio(tmp_path / "lego") / "transforms.json"
    top = json.loads(path.read_text())
    path.unlink()
    for part, frames in (("train", top["frames"][:2][::-1]), ("test", top["frames"][2:3])):
        (path.parent / f"transforms_{part}.json").write_text(json.dumps({**top, "frames": frames}))
    frames = find_scenes(tmp_path / "lego")[0].frames
    assert [frame.part for frame in frames] == ["train", "train", "test"]
    assert [frame.name for frame in frames] == ["frame_00001", "frame_00002", "frame_00003"]


def test_a_picture_that_is_listed_again_is_a_frame_once(tmp_path: Path, copy: Copy) -> None:
    """A train picture that is among the test pictures too is asked for, not given."""
    path = copy.nerfstudio(tmp_path / "plain") / "transforms.json"
    top = json.loads(path.read_text())
    whole = list(top["frames"])
    top["frames"].append(whole[3])
    path.write_text(json.dumps(top))
    (found,) = find_scenes(tmp_path / "plain")
    again = Path(top["frames"][3]["file_path"]).name
    assert len({frame.name for frame in found.frames}) == len(found) == len(copy.pictures)
    assert found.remarks == [f"named more than once, used once: {again}"]
    folder = copy.nerfstudio(tmp_path / "split")
    (folder / "transforms.json").unlink()
    for part, frames in (("train", whole[:4]), ("test", whole[3:6])):
        (folder / f"transforms_{part}.json").write_text(json.dumps({**top, "frames": frames}))
    (found,) = find_scenes(tmp_path / "split")
    assert [frame.part for frame in found.frames] == ["train"] * 3 + ["test"] * 3
    assert found.remarks == [f"named more than once, used once: {again}"]


def test_masks_are_read_with_their_frames_and_told(tmp_path: Path, copy: Copy) -> None:
    copy.nerfstudio(tmp_path)
    pixels = np.full((copy.size[1], copy.size[0]), 255, np.uint8)
    pixels[:20] = 0
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    plain = find_scenes(tmp_path)[0].fingerprint([0, 1])
    path = tmp_path / "transforms.json"
    top = json.loads(path.read_text())
    top["frames"][0]["mask_path"] = "mask.png"
    path.write_text(json.dumps(top))
    (found,) = find_scenes(tmp_path)
    mask = found.read(0).mask
    assert mask is not None
    assert torch.equal(mask, torch.from_numpy(pixels > 0))
    assert found.read(1).mask is None
    assert found.remarks == ["masks of 1 frames: no points from what they hide; scores take all pixels"]
    assert found.fingerprint([1]) == find_scenes(tmp_path)[0].fingerprint([1])
    masked = found.fingerprint([0, 1])
    assert masked != plain
    Image.fromarray(255 - pixels).save(tmp_path / "mask.png")
    assert found.fingerprint([0, 1]) not in (masked, plain)
    task = Task(Split("s", found.name, [0, 2], [1]), found, None, Placing())
    assert task.photos.masks is not None
    assert task.photos.masks[1] is None
    assert not bool(task.photos.masks[0][20:].any())


def test_the_scenes_we_measure_on(shared: Path) -> None:
    found = find_scenes(shared / "data" / "scenes")
    assert {scene.name for scene in found} >= {"fern", "fox", "redkitchen"}
    cameras, _ = read_transforms_json(shared / "data" / "scenes" / "fox" / "transforms.json")
    fox = next(scene for scene in found if scene.name == "fox")
    same_cameras(join_cameras([fox.read(3), fox.read(9)]), cameras[[3, 9]])


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_scenes(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no scene found; looked for mipnerf360: .*; colmap: sparse/0 and images"):
        find_scenes(tmp_path)
    with pytest.raises(UserError, match=r"looked for tanks-fvs: \[dense/\]ibr3d_pw"):
        find_scenes(tmp_path, "tanks-fvs")
    with pytest.raises(UserError, match="`layout` llff: choose auto, mipnerf360"):
        find_scenes(tmp_path, "llff")


def test_a_lens_can_be_left_as_it_is(tmp_path: Path, copy: Copy) -> None:
    path = copy.nerfstudio(tmp_path / "bent") / "transforms.json"
    path.write_text(path.read_text().replace('"k1": 0.0', '"k1": 0.2'))
    straight = find_scenes(tmp_path / "bent")[0].read(0).image
    as_it_is = find_scenes(tmp_path / "bent", lens="ignore")[0].read(0).image
    assert torch.equal(as_it_is, torch.from_numpy(np.array(copy.pictures[0])))
    assert not torch.equal(straight, as_it_is)


def test_a_fingerprint_sees_cameras_and_pictures(tmp_path: Path, copy: Copy) -> None:
    def fingerprint() -> str:
        return find_scenes(tmp_path / "s")[0].fingerprint([0, 2])

    path = copy.nerfstudio(tmp_path / "s") / "transforms.json"
    first = fingerprint()
    assert fingerprint() == first
    copy.pictures[1].save(tmp_path / "s" / "images" / "frame_00002.png")
    assert fingerprint() == first  # not one of them
    path.write_text(path.read_text().replace('"fl_x": ', '"fl_x": 1'))
    second = fingerprint()
    copy.pictures[1].save(tmp_path / "s" / "images" / "frame_00003.png")
    assert len({first, second, fingerprint()}) == 3


NAMES, NUMBERS, SIZE = ["a_07", "a_09", "b_01"], [7, 9, 12], (72, 64)


def pictures(folder: Path, names: list[str], size: tuple[int, int] = SIZE) -> Path:
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        array = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("names", [NAMES, ["7", "9", "12"], ["00007", "00009", "00012"]])
def test_outside_frames_by_name_or_number(tmp_path: Path, names: list[str]) -> None:
    found = read_frames(pictures(tmp_path / "f", names), NAMES, NUMBERS, SIZE)
    for i, picture in enumerate(found):
        expected = np.random.default_rng(i).integers(0, 256, (64, 72, 3), dtype=np.uint8)
        assert np.array_equal(picture.numpy(), expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[:2], r"its 2 frames are not the 3 asked for: 1 missing \(such as b_01\)"),
        ([*NAMES, "b_02"], r"1 extra \(such as b_02\)"),
        (["a_07", "a_09", "b_10"], r"1 missing \(such as b_01\) and 1 extra \(such as b_10\)"),
        (["0", "1", "2"], r"3 missing \(such as frame 7\) and 3 extra \(such as 0.png\)"),
        (["7", "9", "13"], r"1 missing \(such as frame 12\) and 1 extra \(such as 13.png\)"),
        (["7", "07", "9", "12"], "its 4 frames are not the 3 asked for"),
        ([], "its 0 frames are not the 3 asked for"),
    ],
)
def test_frames_that_do_not_fit_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_frames(pictures(tmp_path / "f", names), NAMES, NUMBERS, SIZE)


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            read_frames(folder, NAMES, NUMBERS, SIZE)

    with pytest.raises(UserError, match="no such folder"):
        read_frames(tmp_path / "none", NAMES, NUMBERS, SIZE)
    folder = pictures(tmp_path / "f", NAMES, (144, 128))
    refused("144x128 pixels, not 72x64; make frames of that size, or say how they were cut")
    pictures(folder, NAMES)
    sixteen = np.zeros((64, 72, 3), dtype=np.uint16)
    assert cv2.imwrite(str(folder / "a_09.png"), sixteen)
    assert Image.open(folder / "a_09.png").mode == "RGB"  # Pillow would not have told
    refused("16 bits of RGB; only 8-bit RGB")
    Image.new("L", SIZE).save(folder / "a_09.png")
    refused("8 bits of grey")
    Image.new("RGBA", SIZE).save(folder / "a_09.png")
    refused("8 bits of RGB with transparency")
    Image.new("RGB", SIZE).save(folder / "a_09.png", "JPEG")
    refused("not a PNG file")
    pictures(folder, NAMES)
    whole = (folder / "a_09.png").read_bytes()
    (folder / "a_09.png").write_bytes(whole[: len(whole) // 2])
    refused("damaged")
    Image.new("RGB", SIZE).save(folder / "x.jpg")
    refused("x.jpg is no PNG")


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    copy.nerfstudio(tmp_path / "scene")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    scene, out = str(tmp_path / "scene"), str(tmp_path / "out")
    for arguments, message in (
        (["-o", out], "no scenes"),
        ([str(tmp_path / "full"), "-o", out], "no scene found; looked for"),
        ([scene, "-o", str(tmp_path / "full")], "not empty and not of an earlier evaluation"),
        ([scene, "-o", out], "pairs.json: no such file"),
        ([scene, "-o", out, "--protocol", "fvgen-5x14"], "this protocol needs 61 frames, the scene has 9"),
        ([scene, "-o", out, "--protocol", "fvgen-5x1", "--models", "a:b:"], "write MODEL or MODEL:STEPS"),
        ([scene, "-o", out, "--protocol", "fvgen-5x1", "--baselines", "magic"], "--baselines magic: choose of guide"),
        ([scene, "-o", out, "--protocol", "fvgen-5x1", "--frames", "x"], "--frames x: write NAME=FOLDER"),
        ([scene, "-o", out, "--protocol", "fvgen-5x1", "--metrics", "lpips"], "there is no metric 'lpips'"),
        ([scene, "-o", out, "--size", "64x32"], "pictures of 64x64 at least are scored"),
        ([scene, scene, "-o", out, "--protocol", "fvgen-5x1"], "there is another scene called scene"),
    ):
        assert main(["evaluate", *arguments]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    assert not Path(out).exists()
