"""What is written: every file of the contract, all of it or nothing."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.cameras import Cameras, path_through
from fvgen.cameras.poses import look_at
from fvgen.errors import UserError
from fvgen.files import SCENE, writing
from fvgen.models.speed import Speed
from fvgen.outputs import output_folder, prepare_output, write_files, write_outputs, write_photos
from fvgen.pipeline import Settings
from fvgen.rendering import Guide
from fvgen.scene.depth import DepthMap
from fvgen.scene.formats.ply import read_ply
from fvgen.scene.types import MEASURED, Dropped, Photos, PointCloud, Scene

FRAMES, WIDTH, HEIGHT = 7, 64, 48
FILES = {"views.mp4", "guide.mp4", "images", "coverage", "photos", "transforms.json", "sparse", "points.ply"}
FILES |= {"summary.json", "transforms_photos.json", "depth", SCENE}


@pytest.fixture
def views() -> Any:
    """Seven frames between two photos of different sizes, made up."""
    random = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[160, 120], [200, 150]])
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = torch.tensor([150.0, 190.0])
    intrinsics[:, :2, 2] = sizes / 2
    centers = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    target, up = torch.tensor([0.5, 0, 4]).double(), torch.tensor([0.0, -1, 0]).double()
    cameras = Cameras(look_at(centers, target, up), intrinsics, sizes)
    path = path_through(cameras, FRAMES, (WIDTH, HEIGHT))

    def colours(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, generator=random).to(torch.uint8)

    photos = Photos(
        names=["one.jpg", "two.png"],
        images=[colours(120, 160, 3), colours(150, 200, 3)],
        focals=[None, 190.0],
        dropped=[Dropped("blurred.jpg", "nothing matched")],
    )
    p = 50
    positions = torch.randn(p, 3, generator=random)
    points = PointCloud(positions, colours(p, 3), torch.zeros(p, dtype=torch.int64), torch.ones(p))
    confidence = torch.linspace(0, 1, 1200).view(30, 40)
    depths = [
        DepthMap(1 + torch.rand(30, 40, generator=random), confidence, cameras[k].resized(40, 30), colours(30, 40, 3))
        for k in range(2)
    ]
    guide = Guide(
        completed=colours(FRAMES, HEIGHT, WIDTH, 3),
        told=colours(FRAMES, HEIGHT, WIDTH),
        coverage=torch.rand(FRAMES, HEIGHT, WIDTH, generator=random) > 0.5,
        depth=torch.ones(FRAMES, HEIGHT, WIDTH),
        cameras=path.cameras,
        photo=path.photo,
    )
    return SimpleNamespace(
        frames=colours(FRAMES, HEIGHT, WIDTH, 3),
        guide=guide,
        cameras=path.cameras,
        photo=path.photo,
        scene=Scene(photos, cameras, points, depths, "colmap"),
        seconds={"load": 0.1, "geometry": 1.5, "render": 0.2, "total": 1.9},
        settings=Settings("none", 0, 1.0, 7, "cpu", "float32", speed=Speed(offload=True)),
    )


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_file_is_there_and_nothing_else(views: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    write_outputs(views, out)
    assert {p.name for p in out.iterdir()} == FILES
    names = [f"{i:05d}.png" for i in range(FRAMES)]
    for folder in ("images", "coverage"):
        assert sorted(p.name for p in (out / folder).iterdir()) == names
    for i, name in enumerate(names):
        assert (pixels(out / "images" / name) == views.frames[i].numpy()).all()
        assert (pixels(out / "coverage" / name) == views.guide.coverage[i].numpy() * 255).all()
    assert {p.name for p in out.parent.iterdir()} == {"folder"}
    assert out.stat().st_mode & 0o777 == (tmp_path / "new").stat().st_mode & 0o777


def test_photos_are_full_size(views: Any, tmp_path: Path) -> None:
    write_outputs(views, tmp_path / "out")
    photos = tmp_path / "out" / "photos"
    names = ["one.jpg.png", "two.png"]  # nothing is known of a file, and a JPEG would lose something
    assert sorted(p.name for p in photos.iterdir()) == names
    for name, image in zip(names, views.scene.photos.images):
        assert (pixels(photos / name) == image.numpy()).all()


def test_photos_that_are_files_are_copied(views: Any, tmp_path: Path) -> None:
    one, two = (image.numpy() for image in views.scene.photos.images)
    Image.fromarray(two).save(tmp_path / "two.png", compress_level=0)
    Image.fromarray(np.dstack([one, one[..., :1] * 0 + 255])).save(tmp_path / "alpha.png")
    turned = Image.Exif()
    turned[274] = 3
    Image.fromarray(one).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(255 - two).save(tmp_path / "changed.png")
    sources = ["two.png", "alpha.png", "turned.png", "changed.png", "gone.png"]
    images = [views.scene.photos.images[k] for k in (1, 0, 0, 1, 1)]
    names = [f"{k}.png" for k in range(5)]
    photos = Photos(names, images, [None] * 5, files=[tmp_path / source for source in sources])
    scene = Scene(photos, views.scene.cameras[[1, 0, 0, 1, 1]], views.scene.points, [], "given")
    (tmp_path / "out").mkdir()
    assert write_photos(scene, tmp_path / "out") == names
    written = [tmp_path / "out" / "photos" / name for name in names]
    for path, image in zip(written, images):
        assert (pixels(path) == image.numpy()).all()
    copy = (tmp_path / "two.png").read_bytes()
    assert [path.read_bytes() == copy for path in written] == [True, False, False, False, False]
    with Image.open(written[2]) as picture:
        assert not picture.getexif()


def test_measured_depth_is_written_as_nerfstudio_reads_it(views: Any, tmp_path: Path) -> None:
    write_outputs(views, tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "transforms_photos.json").read_text())
    unit = listed["depth_unit_scale_factor"]
    for frame, own in zip(listed["frames"], views.scene.depths):
        steps = pixels(tmp_path / "out" / frame["depth_file_path"])
        assert steps.dtype == np.uint16
        measured = (own.confidence >= MEASURED).numpy()
        assert ((steps > 0) == measured).all()
        assert np.abs(steps * unit - own.depth.numpy())[measured].max() <= unit / 2 + 1e-6


def test_photo_formats_that_are_not_written_become_png(views: Any, tmp_path: Path) -> None:
    views.scene = Scene(
        Photos(["a.avif", "b.webp"], views.scene.photos.images, [None, None]), *list(vars(views.scene).values())[1:]
    )
    write_outputs(views, tmp_path / "out")
    photos = tmp_path / "out" / "photos"
    for file, image in zip(["a.avif.png", "b.webp.png"], views.scene.photos.images):
        assert (pixels(photos / file) == image.numpy()).all()
    frames = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    assert [frames[0]["photo"], frames[-1]["photo"]] == ["a.avif.png", "b.webp.png"]


def test_videos_have_all_frames(views: Any, tmp_path: Path) -> None:
    import av

    write_outputs(views, tmp_path / "out", fps=12.5)
    for name in ("views.mp4", "guide.mp4"):
        with av.open(str(tmp_path / "out" / name)) as video:
            stream = video.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height, float(stream.average_rate)) == (WIDTH, HEIGHT, 12.5)
            assert len(list(video.decode(stream))) == FRAMES


def test_a_file_tells_where_all_photographs_were_taken(views: Any, tmp_path: Path) -> None:
    from fvgen.scene.formats.transforms_json import read_records

    write_outputs(views, tmp_path / "out")
    records = read_records(tmp_path / "out" / "transforms_photos.json")
    assert len(records) == len(views.scene.photos)
    for record, pose, matrix in zip(records, views.scene.cameras.world_from_camera, views.scene.cameras.intrinsics):
        assert (tmp_path / "out" / (record.file_path or "")).is_file()
        assert torch.equal(record.world_from_camera, pose)
        assert torch.equal(record.intrinsics(), matrix)


def test_transforms_hold_the_camera_and_source_of_each_frame(views: Any, tmp_path: Path) -> None:
    write_outputs(views, tmp_path / "out")
    frames = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    assert [f["source"] for f in frames] == ["photo"] + ["generated"] * (FRAMES - 2) + ["photo"]
    assert [f.get("photo") for f in frames] == ["one.jpg.png"] + [None] * (FRAMES - 2) + ["two.png"]
    opengl = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    for i, frame in enumerate(frames):
        assert frame["file_path"] == f"images/{i:05d}.png"
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64) @ opengl
        torch.testing.assert_close(pose, views.cameras.world_from_camera[i])
        k = views.cameras.intrinsics[i]
        assert (frame["fl_x"], frame["cx"], frame["cy"]) == pytest.approx((float(k[0, 0]), float(k[0, 2]), HEIGHT / 2))
        assert (frame["w"], frame["h"]) == (WIDTH, HEIGHT)


def test_points_and_colmap_model(views: Any, tmp_path: Path) -> None:
    write_outputs(views, tmp_path / "out")
    positions, colors = read_ply(tmp_path / "out" / "points.ply")
    assert torch.equal(positions, views.scene.points.positions)
    assert torch.equal(colors, views.scene.points.colors)
    # pycolmap has a process of its own: it does not get on with other image libraries
    script = f"""
import json, pycolmap
model = pycolmap.Reconstruction({str(tmp_path / "out" / "sparse" / "0")!r})
images = sorted(model.images.values(), key=lambda image: image.name)
print(json.dumps({{
    "names": [image.name for image in images],
    "centers": [image.projection_center().tolist() for image in images],
    "focal": [model.cameras[image.camera_id].focal_length_x for image in images],
    "size": [[model.cameras[i.camera_id].width, model.cameras[i.camera_id].height] for i in images],
    "points": len(model.points3D),
}}))"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout.splitlines()[-1])
    assert model["names"] == [f"{i:05d}.png" for i in range(FRAMES)]
    torch.testing.assert_close(torch.tensor(model["centers"], dtype=torch.float64), views.cameras.centers)
    assert model["focal"] == pytest.approx(views.cameras.intrinsics[:, 0, 0].tolist())
    assert model["size"] == [[WIDTH, HEIGHT]] * FRAMES
    assert model["points"] == len(positions)


def test_summary(views: Any, tmp_path: Path) -> None:
    write_outputs(views, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    seconds = summary.pop("seconds")
    assert list(seconds) == ["load", "geometry", "render", "encode", "denoise", "decode", "compose", "write", "total"]
    assert seconds["geometry"] == 1.5
    assert seconds["decode"] == 0
    assert seconds["total"] == pytest.approx(1.9 + seconds["write"], abs=2e-3)
    from fvgen import __version__

    shares = [round(float(one.float().mean()), 4) for one in views.guide.coverage]
    made = [share for share, photo in zip(shares, views.photo) if photo is None]  # photographs say nothing
    mean = pytest.approx(sum(made) / len(made), abs=1e-4)
    assert summary == {
        "offload": True,
        "model": "none",
        "steps": 0,
        "guidance_scale": 1.0,
        "seed": 7,
        "device": "cpu",
        "dtype": "float32",
        "frames": FRAMES,
        "size": [WIDTH, HEIGHT],
        "geometry": "colmap",
        "depth": "sweep",
        "photos": {
            "used": ["one.jpg", "two.png"],
            "dropped": [{"name": "blurred.jpg", "reason": "nothing matched"}],
        },
        "measured": {"mean": mean, "least": min(made), "frame": shares.index(min(made)), "frames": shares},
        "points": 50,
        "version": __version__,
    }


def test_a_folder_that_is_not_empty_needs_overwrite(views: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_outputs(views, out)
    (out / "notes.txt").write_text("mine")
    (out / "images" / "99999.png").write_text("from a longer run")
    with pytest.raises(UserError, match=r"out is not empty; .*`overwrite`"):
        write_outputs(views, out)
    views.frames = views.frames.flip(0)
    write_outputs(views, out, overwrite=True)
    assert (pixels(out / "images" / "00000.png") == views.frames[0].numpy()).all()
    assert not (out / "images" / "99999.png").exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(views: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    write_outputs(views, tmp_path / "link")
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("error", "seen", "text"),
    [
        (KeyboardInterrupt("x"), KeyboardInterrupt, "x"),
        (UserError("x"), UserError, "x"),
        (ValueError("bug"), ValueError, "bug"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            UserError,
            "output folder .*/deep/out: no space left on the disk; free",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/elsewhere/file"), OSError, "elsewhere"),
    ],
)
@pytest.mark.parametrize("existing", [True, False])
def test_nothing_is_left_behind_when_writing_fails(
    views: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    seen: type[BaseException],
    text: str,
    existing: bool,
) -> None:
    out = tmp_path / "deep" / "out"
    if existing:
        write_outputs(views, out)
    before = snapshot(tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fvgen.scene.formats.ply.write_ply", fail)
    with pytest.raises(seen, match=text):
        write_outputs(views, out, overwrite=True)
    assert snapshot(tmp_path) == before


def test_a_full_disk_is_told_whatever_the_writer_raises(
    views: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("4096 requested and 0 written")  # numpy's, without a number

    monkeypatch.setattr("fvgen.scene.formats.ply.write_ply", fail)
    with pytest.raises(OSError, match="requested"):
        write_outputs(views, tmp_path / "out")
    monkeypatch.setattr("fvgen.files.shutil.disk_usage", lambda place: SimpleNamespace(free=100))
    with pytest.raises(UserError, match="output folder .*out: no space left on the disk"):
        write_outputs(views, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_small_disk_is_one_line_and_stays_empty(views: Any, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("NO RIGHT TO MOUNT: writing to a full disk was not tried")
    try:
        with pytest.raises(UserError, match="output folder .*disk/out: no space left on the disk"):
            write_outputs(views, place / "out")
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)  # the error still holds an open file


def test_names_too_long_and_folders_that_refuse_are_one_line(views: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file name too long"):
        write_outputs(views, tmp_path / ("a" * 300))
    for number, text in (
        (errno.EROFS, "read-only file system"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "limit"),
        (errno.EISDIR, "is a directory"),
    ):
        error = OSError(number, "x", str(tmp_path / "out" / "file"))
        with pytest.raises(UserError, match=f"output out: .*{text}"), writing(tmp_path / "out", "output out"):
            raise error
        with pytest.raises(OSError, match="x"), writing(tmp_path / "other", "other"):
            raise error


@pytest.mark.parametrize("step", range(20))
def test_an_interrupted_replacement_is_taken_back(
    views: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_outputs(views, out)
    before = snapshot(tmp_path)
    left, rename = step, Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left == -1:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    views.frames = views.frames.flip(0)
    moves = 2 * len(FILES)
    if step < moves:
        with pytest.raises(KeyboardInterrupt):
            write_outputs(views, out, overwrite=True)
        assert snapshot(tmp_path) == before
    else:
        write_outputs(views, out, overwrite=True)
        assert snapshot(tmp_path) != before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_inputs_and_foreign_folders_are_never_replaced(tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    (scene / "images").mkdir(parents=True)
    (scene / "images" / "1.jpg").write_text("a photo")
    (scene / "transforms.json").write_text("{}")
    for item in (scene, scene / "transforms.json", scene / "images" / "1.jpg"):
        with pytest.raises(UserError, match="holds the input"):
            prepare_output(scene, True, [item])
    with pytest.raises(UserError, match="images/ in it was not written by fvgen"):
        prepare_output(scene, True)
    with pytest.raises(UserError, match="is a file"):
        prepare_output(scene / "transforms.json", True)
    with pytest.raises(UserError, match="is a file"):
        prepare_output(scene / "transforms.json" / "deeper")
    assert prepare_output(tmp_path / "other", False, [scene]) == (tmp_path / "other").resolve()
    assert {p.name for p in tmp_path.iterdir()} == {"scene"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    out = tmp_path / "new" / "out"
    with pytest.raises(UserError, match=r"out: cannot be written \(permission denied\)"), output_folder(out):
        pass
    assert not out.parent.exists()


def test_files_are_written_only_where_they_are_told(views: Any, tmp_path: Path) -> None:
    write_files(views, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == FILES
