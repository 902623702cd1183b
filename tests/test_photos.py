"""Loading whatever a user names, and refusing it with one clear line."""

import json
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene import Photos, load_photos
from fvgen.scene.build import build_scene
from fvgen.scene.formats import images
from fvgen.scene.formats.colmap import write_colmap
from fvgen.scene.formats.images import focal_from_exif, is_cropped, read_photo
from fvgen.scene.formats.transforms_json import write_transforms_json
from fvgen.scene.formats.video import write_video

ORIENTATION, EXIF, FOCAL_MM, FOCAL_35MM = 0x0112, 0x8769, 0x920A, 0xA405
PLANE_X, PLANE_UNIT, EXIF_WIDTH, EXIF_HEIGHT = 0xA20E, 0xA210, 0xA002, 0xA003


def noise(seed: int, width: int = 96, height: int = 72) -> np.ndarray:
    """A textured picture, smooth enough for JPEG."""
    small = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, seed: int = 0, width: int = 96, height: int = 72, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, width, height)).save(path, **options)
    return path


def look(name: str) -> Cameras:
    """A camera that no default would give."""
    k = torch.tensor([[90.0, 0, 47], [0, 92, 37.5], [0, 0, 1]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = float(name)
    return Cameras(pose[None], k[None], torch.tensor([[96, 72]]))


def posed_scene(folder: Path, count: int = 3, **options: Any) -> Cameras:
    """``images/0.png ...`` and ``transforms.json``."""
    cameras = Cameras.concatenate([look(str(i)) for i in range(count)])
    names = [f"images/{i}.png" for i in range(count)]
    for i, name in enumerate(names):
        save(folder / name, i, **options)
    write_transforms_json(folder / "transforms.json", cameras, names)
    return cameras


def edit(path: Path, change: Callable[[dict], object]) -> None:
    top = json.loads(path.read_text())
    change(top)
    path.write_text(json.dumps(top))


def failing(*sources: str | Path, **options: int) -> str:
    """The one line with which loading ends."""
    with pytest.raises(UserError) as caught:
        load_photos(list(sources), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# Files and folders


def test_files_keep_the_users_order_and_sizes_may_differ(tmp_path: Path) -> None:
    b = save(tmp_path / "b.png", 1, 96, 72)
    a = save(tmp_path / "a.png", 2, 64, 128)
    photos = load_photos([b, a])
    assert photos.names == ["b.png", "a.png"]
    assert [tuple(image.shape) for image in photos.images] == [(72, 96, 3), (128, 64, 3)]
    assert np.array_equal(photos.images[1].numpy(), noise(2, 64, 128))
    assert photos.images[0].dtype == torch.uint8
    assert photos.cameras is None
    assert photos.focals == [None, None]
    assert photos.dropped == []


def test_folders_are_sorted_as_people_count_and_other_files_ignored(tmp_path: Path) -> None:
    for i, name in enumerate(["IMG_10.png", "IMG_9.png", "img_1.JPG", ".hidden.png"]):
        save(tmp_path / name, i)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "IMG_9.dng").write_text("the raw file of IMG_9")
    assert load_photos(tmp_path).names == ["img_1.JPG", "IMG_9.png", "IMG_10.png"]


def test_what_a_folder_holds_besides_its_photos_is_told(tmp_path: Path) -> None:
    """Videos and folders of photos are not read; nor are macOS's shadows of files, without a word, and live photos."""
    for i, name in enumerate(["IMG_1.jpg", "IMG_2.jpg", "more/IMG_3.jpg"]):
        save(tmp_path / name, i)
    (tmp_path / "._IMG_1.jpg").write_bytes(b"\0\5\x16\7 Mac OS X")
    (tmp_path / "IMG_1.MOV").touch()
    (tmp_path / "empty").mkdir()
    photos = load_photos(tmp_path)
    assert photos.names == ["IMG_1.jpg", "IMG_2.jpg"]
    assert photos.remarks() == [f"{tmp_path}: used its photos; not used: more/"]
    (tmp_path / "walk.mp4").touch()
    assert load_photos(tmp_path).notes[0].endswith("not used: more/, walk.mp4")


def test_shadows_of_files_are_no_photos_of_a_model(tmp_path: Path) -> None:
    posed_scene(tmp_path, 2)
    (tmp_path / "transforms.json").unlink()
    colmap_text(tmp_path / "sparse/0", 2, True)
    (tmp_path / "images/._0.png").write_bytes(b"\0\5\x16\7 Mac OS X")
    assert load_photos(tmp_path).remarks() == []


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    files = [save(tmp_path / f, i) for i, f in enumerate(["a/1.png", "b/1.png", "b/1.jpg", "a/2.png"])]
    assert load_photos(files).names == ["1.png", "b_1.png", "1_2.jpg", "2.png"]
    more = [save(tmp_path / "more" / path.relative_to(tmp_path), 9 + i) for i, path in enumerate(files)]
    assert len(set(load_photos([*files, *more]).names)) == 8


def test_max_photos_takes_evenly_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    for i in range(7):
        save(tmp_path / f"{i}.png", i)
    photos = load_photos(tmp_path, max_photos=3)
    assert photos.names == ["0.png", "3.png", "6.png"]
    assert [d.name for d in photos.dropped] == ["1.png", "2.png", "4.png", "5.png"]
    assert "3 taken evenly of 7" in photos.dropped[0].reason
    assert len(load_photos(tmp_path, max_photos=9)) == 7
    assert "at least two" in failing(tmp_path, max_photos=1)


# Pixels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / "a.png", 3, exif=exif)
    want = np.array(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(read_photo(path).upright().numpy(), want)


def test_unusual_pixels_become_rgb(tmp_path: Path) -> None:
    rgb = noise(4)
    grey = rgb[..., 0]

    def read(name: str, image: Image.Image, **options: Any) -> np.ndarray:
        image.save(tmp_path / name, **options)
        return read_photo(tmp_path / name).upright().numpy()

    want = np.repeat(grey[..., None], 3, 2)
    assert np.array_equal(read("grey.png", Image.fromarray(grey)), want)
    assert np.array_equal(read("grey16.png", Image.fromarray(grey.astype(np.uint16) * 257)), want)
    assert np.array_equal(read("grey16.tif", Image.fromarray(grey.astype(np.uint16) * 257)), want)
    assert np.array_equal(read("rgb.webp", Image.fromarray(rgb), lossless=True), rgb)
    assert np.array_equal(read("rgb.tif", Image.fromarray(rgb)), rgb)
    assert np.array_equal(read("palette.png", Image.fromarray(grey).convert("P")), want)
    assert set(np.unique(read("bits.png", Image.fromarray(grey > 128)))) == {0, 255}
    cmyk = read("cmyk.jpg", Image.fromarray(rgb).convert("CMYK"), quality=98)
    assert np.abs(cmyk.astype(int) - rgb).mean() < 4


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([noise(5), np.full((72, 96), 255, np.uint8)])
    rgba[:, :48, 3] = 0
    rgba[:8, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_photo(tmp_path / "a.png").upright().numpy()
    assert (image[10:, :48] == 255).all()
    assert np.array_equal(image[8:, 48:], noise(5)[8:, 48:])
    assert np.abs(image[:8].astype(float) - (noise(5)[:8] * (128 / 255) + 127)).max() <= 1


def test_colour_profiles_are_converted(tmp_path: Path) -> None:
    """A profile whose red and blue primaries are swapped makes red blue; sRGB's own changes nothing."""
    from PIL import ImageCms

    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    save(tmp_path / "same.png", 6, icc_profile=bytes(data))
    assert np.array_equal(read_photo(tmp_path / "same.png").image.numpy(), noise(6))
    for tag, other in ((b"rXYZ", b"bTMP"), (b"bXYZ", b"rXYZ"), (b"bTMP", b"bXYZ")):
        at = data.index(tag, 128)
        data[at : at + 4] = other
    at = data.index("sRGB".encode("utf-16-be"))
    data[at : at + 8] = "swap".encode("utf-16-be")
    save(tmp_path / "swap.png", 6, icc_profile=bytes(data))
    swapped = read_photo(tmp_path / "swap.png").image.numpy()
    assert np.abs(swapped.astype(int) - noise(6)[..., ::-1]).mean() < 3
    save(tmp_path / "broken.png", 6, icc_profile=b"no profile at all")
    assert np.array_equal(read_photo(tmp_path / "broken.png").image.numpy(), noise(6))


# EXIF focal length

D60 = {FOCAL_MM: 29.0, FOCAL_35MM: 43}


@pytest.mark.parametrize(
    ("tags", "size", "want"),
    [
        ({}, (600, 400), None),
        ({FOCAL_35MM: 43.2666153}, (600, 800), 1000.0),
        ({FOCAL_35MM: 0}, (600, 400), None),
        ({FOCAL_35MM: float("nan")}, (600, 400), None),
        ({FOCAL_MM: 10.0}, (600, 400), None),
        ({FOCAL_MM: 10.0, PLANE_X: 2540.0, PLANE_UNIT: 2}, (1500, 1000), 1000.0),
        ({FOCAL_MM: 10.0, PLANE_X: 1000.0, PLANE_UNIT: 3}, (1500, 1000), 1000.0),
        ({FOCAL_MM: 10.0, PLANE_X: 2540.0, EXIF_WIDTH: 3000, EXIF_HEIGHT: 2000}, (1500, 1000), 500.0),
        ({FOCAL_MM: 10.0, PLANE_X: 2540.0, EXIF_WIDTH: 3000, EXIF_HEIGHT: 2000}, (1000, 1500), 500.0),
        # Crops: of the whole picture as EXIF tells its size, scaled at least so much that the crop fits in, or else of
        # one around it between 3:2 (1000 here) and 4:3.
        ({FOCAL_35MM: 43.2666153 / 1.25, EXIF_WIDTH: 4000, EXIF_HEIGHT: 3000}, (1000, 1000), 4000.0),
        ({FOCAL_35MM: 43.2666153 / 1.25, EXIF_WIDTH: 400, EXIF_HEIGHT: 300}, (600, 600), 800.0),
        ({FOCAL_MM: 10.0, PLANE_X: 2540.0, EXIF_WIDTH: 3000, EXIF_HEIGHT: 2000}, (1000, 1000), 1000.0),
        ({FOCAL_35MM: 43.2666153}, (1000, 400), 1000 * 1.5**0.5),
        ({FOCAL_35MM: 43.2666153}, (500, 600), 500 * 3**0.5),
        ({FOCAL_MM: 10.0, PLANE_X: 2.54}, (1500, 1000), None),
        ({FOCAL_35MM: 28, FOCAL_MM: 10.0, PLANE_X: 25400.0}, (1500, 1000), 28 / 43.2666153 * math.hypot(1500, 1000)),
        ({FOCAL_35MM: 24, FOCAL_MM: 10.0, PLANE_X: 2540.0}, (1500, 1000), 1000.0),
        ({FOCAL_35MM: "28 mm"}, (600, 400), None),
    ],
)
def test_focal_from_exif(tags: dict, size: tuple[int, int], want: float | None) -> None:
    got = focal_from_exif(tags, *size)
    assert got == (want if want is None else pytest.approx(want, rel=1e-6))


def test_a_crop_is_told_by_its_shape(tmp_path: Path) -> None:
    """A camera's shapes are no crops; another than EXIF's own is one. It is said, unless cameras are given."""
    native = {EXIF_WIDTH: 4000, EXIF_HEIGHT: 3000}
    for size in ((400, 300), (300, 400), (600, 400), (1600, 900), (500, 500), (1920, 1088)):
        assert not is_cropped({}, *size)
        assert is_cropped(native, *size) == (sorted(size) != [300, 400])
    for size in ((1000, 400), (500, 400), (500, 600)):
        assert is_cropped({}, *size)
    exif = Image.Exif()
    exif.get_ifd(EXIF)[FOCAL_35MM] = 35
    for i in range(3):
        save(tmp_path / f"{i}.jpg", i, 160 if i else 96, 72, **({"exif": exif} if i < 2 else {}))
    photos = load_photos(tmp_path)
    assert photos.cropped == [False, True, False]
    assert photos.focals == [
        pytest.approx(35 / 43.2666153 * 120),
        pytest.approx(35 / 43.2666153 * 160 * 1.5**0.5),
        None,
    ]
    assert photos.notes == ["1.jpg: cropped, so that EXIF's focal length is uncertain; matches decide"]
    cameras = Cameras.concatenate([look(str(i)) for i in range(3)])[[1, 2]].resized(160, 72)
    write_transforms_json(tmp_path / "transforms.json", cameras, ["1.jpg", "2.jpg"])
    assert load_photos(tmp_path).notes == []


def test_focal_is_read_from_the_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(EXIF)[FOCAL_35MM] = 35
    save(tmp_path / "a.jpg", 0, exif=exif)
    save(tmp_path / "b.jpg", 1)
    photos = load_photos(tmp_path)
    assert photos.focals == [pytest.approx(35 / math.hypot(36, 24) * 120), None]
    assert photos.images[0].shape == (96, 72, 3)


def test_damaged_exif_only_loses_the_prior(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", 0, exif=b"Exif\0\0II*\0\xff\xff\xff\xffrubbish")
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.focal is None
    assert (photo.turns, photo.mirrored) == (0, False)


def test_real_exif(shared: Path) -> None:
    """29 mm on a Nikon D60 (sensor 23.6 x 15.8 mm); its 35 mm equivalent is rounded to 43."""
    photos = load_photos(shared / "data/photos/door-12")
    assert len(photos) == 12
    for image, focal in zip(photos.images, photos.focals, strict=True):
        assert image.shape == (1200, 803, 3)
        assert focal == pytest.approx(43 / math.hypot(36, 24) * math.hypot(803, 1200))
        assert focal == pytest.approx(29 / 23.6 * 1200, rel=0.04)


# Photos with cameras


def test_transforms_json_gives_photos_and_cameras(tmp_path: Path) -> None:
    cameras = posed_scene(tmp_path)
    for source in (tmp_path, tmp_path / "transforms.json"):
        photos = load_photos(source)
        assert photos.names == ["0.png", "1.png", "2.png"]
        assert np.array_equal(photos.images[2].numpy(), noise(2))
        assert photos.cameras is not None
        assert torch.equal(photos.cameras.world_from_camera, cameras.world_from_camera)
        assert torch.equal(photos.cameras.intrinsics, cameras.intrinsics)
        assert torch.equal(photos.cameras.sizes, cameras.sizes)


def test_scaled_photos_scale_their_intrinsics(tmp_path: Path) -> None:
    posed_scene(tmp_path, width=192, height=144)
    photos = load_photos(tmp_path)
    assert photos.cameras is not None
    want = torch.tensor([[180.0, 0, 94], [0, 184, 75], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(photos.cameras.intrinsics[1], want)
    assert photos.cameras.sizes[1].tolist() == [192, 144]


def test_smaller_copies_in_images_4_are_found(tmp_path: Path) -> None:
    posed_scene(tmp_path)
    edit(tmp_path / "transforms.json", lambda top: [f.update(w=384, h=288) for f in top["frames"]])
    (tmp_path / "images").rename(tmp_path / "images_4")
    photos = load_photos(tmp_path)
    assert photos.cameras is not None
    assert photos.cameras.sizes.tolist() == [[96, 72]] * 3
    assert float(photos.cameras.intrinsics[0, 0, 0]) == 22.5


def test_distorted_photos_are_undistorted(tmp_path: Path) -> None:
    """Straight lines of a scene, bent by the lens when drawn, are straight again where the cameras say."""
    cameras = posed_scene(tmp_path)
    k1, k = -0.2, cameras.intrinsics[0]
    v, u = torch.meshgrid(torch.arange(72) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    bent = torch.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1]], -1)
    ray = bent.clone()
    for _ in range(50):
        ray = bent / (1 + k1 * (ray * ray).sum(-1, keepdim=True))
    stripes = (128 + 100 * torch.sin(12 * ray[..., 0])).round().to(torch.uint8)
    for i in range(3):
        pixels = torch.stack([stripes, torch.full_like(stripes, i), stripes], -1)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"images/{i}.png")

    def distort(top: dict) -> None:
        top["k1"] = k1
        for frame in top["frames"]:
            del frame["k1"]

    edit(tmp_path / "transforms.json", distort)
    photos = load_photos(tmp_path)
    assert photos.cameras is not None
    k = photos.cameras.intrinsics[0]
    want = 128 + 100 * torch.sin(12 * (u - k[0, 2]) / k[0, 0])
    error = (photos.images[0][..., 0] - want).abs()
    assert float(error.mean()) < 1
    assert float((stripes - want).abs().mean()) > 8, "the lens must matter here"


def test_frames_come_in_the_order_of_names_and_chosen_ones_keep_their_cameras(tmp_path: Path) -> None:
    """Whatever the file's order; but where frames are numbered, as fvgen writes them, in that order."""
    posed_scene(tmp_path, 12)
    order = [4, 11, 0, 9, 2, 10, 1, 3, 8, 5, 7, 6]
    edit(tmp_path / "transforms.json", lambda top: top.update(frames=[top["frames"][i] for i in order]))
    photos = load_photos(tmp_path)
    assert photos.names == [f"{i}.png" for i in range(12)]
    photos = load_photos(tmp_path, max_photos=3)
    assert photos.names == ["0.png", "6.png", "11.png"]
    assert photos.cameras is not None
    assert photos.cameras.centers[:, 0].tolist() == [0, 6, 11]
    edit(tmp_path / "transforms.json", lambda top: [frame.update(order=i) for i, frame in enumerate(top["frames"])])
    assert load_photos(tmp_path).names == [f"{i}.png" for i in order]


@pytest.mark.parametrize("layout", ["sparse/0", "sparse", ".", "colmap/sparse/0"])
def test_colmap_folders(tmp_path: Path, layout: str) -> None:
    cameras = posed_scene(tmp_path, 3)
    (tmp_path / "transforms.json").unlink()
    (tmp_path / layout).mkdir(parents=True, exist_ok=True)
    points, colors = torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8)
    write_colmap(tmp_path / layout, cameras[[2, 0, 1]], ["2.png", "0.png", "1.png"], points, colors)
    for source in {tmp_path, tmp_path / layout}:
        photos = load_photos(source)
        assert photos.names == ["0.png", "1.png", "2.png"]
        assert photos.cameras is not None
        torch.testing.assert_close(photos.cameras.world_from_camera, cameras.world_from_camera)
        assert torch.equal(photos.cameras.intrinsics, cameras.intrinsics)


def colmap_text(folder: Path, count: int, blank: bool, name: str = "{}.png") -> None:
    """A text model; only every second image has 2D points, the others an empty second line or, if not blank, none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text("# cameras\n1 PINHOLE 96 72 90 92 47 37.5\n")
    lines = "# images\n"
    for i in range(count):
        lines += f"{i + 1} 1 0 0 0 {-i} 0 0 1 {name.format(i)}\n"
        lines += "10.5 20.5 -1 30 40 7\n" if i % 2 else "\n" if blank else ""
    (folder / "images.txt").write_text(lines)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("blank", [True, False])
def test_colmap_texts_may_lack_empty_lines(tmp_path: Path, blank: bool, end: str) -> None:
    """Names that look like numbers are names all the same."""
    posed_scene(tmp_path, 5)
    (tmp_path / "transforms.json").unlink()
    for i in range(5):
        (tmp_path / f"images/{i}.png").rename(tmp_path / f"images/2024 05 {i}.png")
    colmap_text(tmp_path / "sparse/0", 5, blank, "2024 05 {}.png")
    for file in (tmp_path / "sparse/0").iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", end.encode()))
    photos = load_photos(tmp_path)
    assert photos.names == [f"2024 05 {i}.png" for i in range(5)]
    assert photos.cameras is not None
    assert photos.cameras.centers[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_the_largest_of_several_models_is_used_and_the_rest_told(tmp_path: Path) -> None:
    cameras = posed_scene(tmp_path, 8)
    (tmp_path / "transforms.json").unlink()
    points, colors = torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8)
    for number, own in ((0, [0, 1]), (1, [2, 3, 4, 6]), (10, [5])):
        (tmp_path / f"sparse/{number}").mkdir(parents=True)
        write_colmap(tmp_path / f"sparse/{number}", cameras[own], [f"{i}.png" for i in own], points, colors)
    photos = load_photos(tmp_path)
    assert photos.names == ["2.png", "3.png", "4.png", "6.png"]
    assert [dropped.name for dropped in photos.dropped] == ["0.png", "1.png", "5.png", "7.png"]
    assert photos.remarks() == [
        "left out 0.png, 1.png, 5.png, 7.png: not placed by the COLMAP model",
        f"{tmp_path}: used the model sparse/1 (photos: 4); not used: sparse/0 (photos: 2), sparse/10 (photos: 1)",
    ]
    assert load_photos(tmp_path / "sparse/0").names == ["0.png", "1.png"]


def test_models_may_have_any_name(tmp_path: Path) -> None:
    """In ``sparse`` and beside each other; of equally large ones the numbered is used, and the others are told."""
    cameras = posed_scene(tmp_path, 5)
    (tmp_path / "transforms.json").unlink()
    points, colors = torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8)
    for name, own in (("sparse", [0]), ("sparse/aligned", [0, 1]), ("sparse/2", [3, 4])):
        (tmp_path / name).mkdir()
        write_colmap(tmp_path / name, cameras[own], [f"{i}.png" for i in own], points, colors)
    photos = load_photos(tmp_path)
    assert photos.names == ["3.png", "4.png"]
    assert (
        "used the model sparse/2 (photos: 2); not used: sparse/aligned (photos: 2), sparse (photos: 1)"
        in photos.notes[0]
    )
    for name in ("sparse/2", "sparse"):
        for file in (tmp_path / name).glob("*.bin"):
            file.unlink()
    assert load_photos(tmp_path).names == ["0.png", "1.png"]


def test_links_in_the_users_folder_are_followed(tmp_path: Path) -> None:
    """The pictures may lie on another disk, or each be a link into a cache whose names say nothing."""
    posed_scene(tmp_path / "a")
    (tmp_path / "disk").mkdir()
    (tmp_path / "a/images").rename(tmp_path / "disk/blobs")
    (tmp_path / "a/images").symlink_to(tmp_path / "disk/blobs")
    assert load_photos(tmp_path / "a").names == ["0.png", "1.png", "2.png"]
    posed_scene(tmp_path / "b")
    for i, file in enumerate(sorted((tmp_path / "b/images").iterdir())):
        file.rename(tmp_path / f"disk/{i:040x}")
        file.symlink_to(tmp_path / f"disk/{i:040x}")
    assert load_photos(tmp_path / "b").names == ["0.png", "1.png", "2.png"]
    (tmp_path / "b/transforms.json").unlink()
    colmap_text(tmp_path / "disk/sparse/0", 3, True)
    (tmp_path / "b/sparse").symlink_to(tmp_path / "disk/sparse")
    assert load_photos(tmp_path / "b").names == ["0.png", "1.png", "2.png"]


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    """Photos of another disk, or of a cache, that are not there are not passed over."""
    for i in range(3):
        save(tmp_path / f"photos/{i}.jpg", i)
    (tmp_path / "photos/3.jpg").symlink_to("/nowhere/3.jpg")
    (tmp_path / "photos/4.jpg").symlink_to("4.jpg")
    said = failing(tmp_path / "photos")
    assert said.startswith(f"{tmp_path / 'photos/3.jpg'}: a link to /nowhere/3.jpg, which is not there")
    assert "(1 more of 5 photos cannot be used: 4.jpg)" in said
    (tmp_path / "link").symlink_to("gone")
    assert failing(tmp_path / "link") == f"{tmp_path / 'link'}: a link to gone, which is not there"
    posed_scene(tmp_path / "scene")
    (tmp_path / "scene/images").rename(tmp_path / "disk")
    (tmp_path / "scene/images").write_text("../disk")  # a link as git on Windows and some archives keep it
    assert "images is a file, not a folder (it may have been a link)" in failing(tmp_path / "scene")


def test_the_place_for_a_models_photos_is_named(tmp_path: Path) -> None:
    colmap_text(tmp_path / "sparse/0", 3, True)
    assert failing(tmp_path).endswith(f"put the photos into {tmp_path / 'images'}")


def test_blender_scenes_read_their_train_split(tmp_path: Path) -> None:
    """No suffixes, an angle, transparent pictures on white, and a line on the split that is not used."""
    posed_scene(tmp_path / "lego")
    edit(
        tmp_path / "lego/transforms.json",
        lambda top: [frame.update(file_path=f"./images/{i}") for i, frame in enumerate(top["frames"])],
    )
    (tmp_path / "lego/transforms.json").rename(tmp_path / "lego/transforms_train.json")
    (tmp_path / "lego/transforms_test.json").write_text("{}")
    photos = load_photos(tmp_path / "lego")
    assert photos.names == ["0.png", "1.png", "2.png"]
    assert photos.cameras is not None
    assert photos.notes == [f"{tmp_path / 'lego'}: used transforms_train.json; not used: transforms_test.json"]


def test_a_folder_is_not_recommended_without_its_cameras(tmp_path: Path) -> None:
    posed_scene(tmp_path)
    (tmp_path / "transforms.json").rename(tmp_path / "transforms_test.json")
    assert failing(tmp_path).endswith("no photos in this folder; name its cameras transforms_test.json")
    assert load_photos(tmp_path / "transforms_test.json").cameras is not None


def test_a_photo_that_is_named_again_is_used_once(tmp_path: Path) -> None:
    """In a transforms.json, in a COLMAP model, as a file beside its folder, and by a link."""
    posed_scene(tmp_path / "json")
    edit(tmp_path / "json/transforms.json", lambda top: top["frames"].append(top["frames"][2] | {"fl_x": 1.0}))
    colmap_text(tmp_path / "colmap/sparse/0", 3, True)
    listed = tmp_path / "colmap/sparse/0/images.txt"
    again = [line.replace("1 ", "9 ", 1) for line in listed.read_text().splitlines() if line.endswith("0.png")]
    listed.write_text("\n".join([*listed.read_text().splitlines(), *again, ""]))
    for i in range(3):
        save(tmp_path / f"colmap/images/{i}.png", i)
        save(tmp_path / f"plain/{i}.png", i)
    (tmp_path / "plain/link.png").symlink_to("1.png")
    for sources, name in (
        (["json"], "2.png"),
        (["colmap"], "0.png"),
        (["plain"], "link.png"),
        (["plain/2.png", "plain/0.png", "plain/1.png", "plain/0.png", "plain/0.png"], "0.png"),
    ):
        photos = load_photos([tmp_path / source for source in sources])
        assert sorted(photos.names) == ["0.png", "1.png", "2.png"]
        assert photos.remarks() == [f"left out {name}: named more than once, used once"]
        if photos.cameras is not None:
            assert len(photos.cameras) == 3
            assert float(photos.cameras.intrinsics[:, 0, 0].min()) > 80  # the first camera of each is taken
    assert "only one photo (named 2 times)" in failing(tmp_path / "plain/0.png", tmp_path / "plain/0.png")


@pytest.mark.parametrize("posed", [False, True])
def test_a_picture_under_two_names_is_used_once(tmp_path: Path, posed: bool) -> None:
    posed_scene(tmp_path)
    (tmp_path / "images/1.png").write_bytes((tmp_path / "images/0.png").read_bytes())
    photos = load_photos(tmp_path if posed else tmp_path / "images")
    assert photos.names == ["0.png", "2.png"]
    assert [path.name for path in photos.files if path] == ["0.png", "2.png"]
    assert photos.remarks() == ["left out 1.png: the same picture as 0.png"]
    assert photos.cameras is None or photos.cameras.centers[:, 0].tolist() == [0.0, 2.0]


def test_masks_beside_a_colmap_model_are_used_and_told(tmp_path: Path) -> None:
    """``masks/0.png.png`` as COLMAP names it and ``masks/1.png``; the third has none."""
    colmap_text(tmp_path / "sparse/0", 3, True)
    (tmp_path / "masks").mkdir()
    pixels = np.full((72, 96), 255, np.uint8)
    pixels[:24] = 0
    for i, name in enumerate(("0.png.png", "1.png", "other.png")):
        save(tmp_path / f"images/{i}.png", i)
        Image.fromarray(pixels).save(tmp_path / "masks" / name)
    photos = load_photos(tmp_path)
    assert photos.masks is not None
    assert photos.masks[2] is None
    for mask in photos.masks[:2]:
        assert mask is not None
        assert torch.equal(mask, torch.from_numpy(pixels > 0))
    assert photos.notes == [f"{tmp_path / 'masks'}: masks of 2 photos; what is black in them is not used"]


def test_masks_are_turned_and_scaled_like_their_photos(tmp_path: Path) -> None:
    """A mask of half the size, of a photo that EXIF turns; the second photo has none."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    posed_scene(tmp_path, 2, exif=exif)
    mask = np.full((144, 192), 255, np.uint8)
    mask[:40, :96] = 0
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks/0.png")
    edit(tmp_path / "transforms.json", lambda top: top["frames"][0].update(mask_path="masks/0.png"))
    photos = load_photos(tmp_path)
    assert photos.masks is not None
    assert photos.masks[1] is None
    want = torch.ones(72, 96, dtype=torch.bool)
    want[:20, :48] = False
    assert torch.equal(photos.masks[0], want.rot90(-1, (0, 1)))
    assert photos.select([1]).masks == [None]
    Image.fromarray(mask[:100]).save(tmp_path / "masks/0.png")
    assert "this mask has another shape than its photo" in failing(tmp_path)
    edit(tmp_path / "transforms.json", lambda top: top["frames"][0].update(mask_path="../0.png"))
    assert "leaves its folder" in failing(tmp_path)
    edit(tmp_path / "transforms.json", lambda top: top["frames"][0].update(mask_path="masks/none.png"))
    assert "there is no image" in failing(tmp_path)


def test_a_mask_may_be_one_for_all_frames(tmp_path: Path) -> None:
    posed_scene(tmp_path)
    mask = np.full((72, 96), 255, np.uint8)
    mask[50:] = 0
    Image.fromarray(mask).save(tmp_path / "car.png")
    edit(tmp_path / "transforms.json", lambda top: top.update(mask_path="car.png"))
    edit(tmp_path / "transforms.json", lambda top: top["frames"][1].update(mask_path=None))
    photos = load_photos(tmp_path)
    assert photos.masks is not None
    assert photos.masks[1] is None
    for shared in (photos.masks[0], photos.masks[2]):
        assert shared is not None
        assert torch.equal(shared, torch.from_numpy(mask > 0))


MASKS: dict[str, Callable[[Image.Image], Image.Image]] = {  # of one with 0 and 255, mode L
    "0 and 1": lambda mask: mask.point(lambda value: value // 255),
    "one bit": lambda mask: mask.convert("1"),
    "16 bits": lambda mask: Image.fromarray(np.asarray(mask).astype(np.uint16) * 257),
    "dark palette": lambda mask: _palette(mask),
    "alpha on black": lambda mask: Image.merge("RGBA", [Image.new("L", mask.size, 0)] * 3 + [mask]),
    "alpha on white": lambda mask: Image.merge("LA", [Image.new("L", mask.size, 255), mask]),
    "tiny": lambda mask: mask.resize((48, 36), Image.Resampling.NEAREST),
}


def _palette(mask: Image.Image) -> Image.Image:
    labels = mask.point(lambda value: value // 255).convert("P")
    labels.putpalette([0, 0, 0, 128, 0, 0])
    return labels


@pytest.mark.parametrize("kind", MASKS)
def test_masks_as_programs_write_them(tmp_path: Path, kind: str) -> None:
    posed_scene(tmp_path, 2)
    pixels = np.full((72, 96), 255, np.uint8)
    pixels[:24] = 0
    MASKS[kind](Image.fromarray(pixels)).save(tmp_path / "mask.png")
    edit(tmp_path / "transforms.json", lambda top: [frame.update(mask_path="mask.png") for frame in top["frames"]])
    photos = load_photos(tmp_path)
    assert photos.masks is not None
    assert torch.equal(photos.masks[0], torch.from_numpy(pixels > 0))


def test_masks_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    posed_scene(tmp_path, 2)
    Image.new("L", (96, 72), 0).save(tmp_path / "mask.png")
    edit(tmp_path / "transforms.json", lambda top: top["frames"][0].update(mask_path="mask.png"))
    assert load_photos(tmp_path).masks is not None
    edit(tmp_path / "transforms.json", lambda top: top["frames"][1].update(mask_path="mask.png"))
    assert "the masks leave nothing of any photo" in failing(tmp_path)


@pytest.mark.parametrize(
    ("orientation", "claims"),
    [(1, "stored"), (3, "stored"), (6, "stored"), (8, "stored"), (6, "upright"), (8, "upright")],
)
def test_turned_photos_with_cameras(tmp_path: Path, orientation: int, claims: str) -> None:
    """Photos come upright, and a scene point stays on its pixel, whichever layout the cameras were found in."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = noise(9)
    at = (20, 60)  # row, column of the stored picture
    pixels[at] = (255, 0, 255)
    point = torch.tensor([0.3, -0.4, 2.0, 1.0], dtype=torch.float64)
    shown = np.array(ImageOps.exif_transpose(Image.open(_saved(tmp_path / "images/0.png", pixels, exif))))
    seen = pixels if claims == "stored" else shown
    row, column = np.argwhere((seen == (255, 0, 255)).all(-1))[0]
    height, width = seen.shape[:2]
    centre = (column + 0.5 - 80 * 0.15, row + 0.5 - 85 * -0.2)
    k = torch.tensor([[80, 0, centre[0]], [0, 85, centre[1]], [0, 0, 1]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)[None]
    cameras = Cameras(pose, k[None], torch.tensor([[width, height]]))
    _saved(tmp_path / "images/1.png", noise(10), exif)
    both = Cameras.concatenate([cameras, cameras])
    write_transforms_json(tmp_path / "transforms.json", both, ["images/0.png", "images/1.png"])
    photos = load_photos(tmp_path)
    assert np.array_equal(photos.images[0].numpy(), shown)
    assert photos.cameras is not None
    pixel = photos.cameras.intrinsics[0] @ (photos.cameras.camera_from_world[0] @ point)[:3]
    u, v = (pixel[:2] / pixel[2]).tolist()
    assert shown[int(v), int(u)].tolist() == [255, 0, 255]
    assert (u % 1, v % 1) == pytest.approx((0.5, 0.5), abs=1e-6)
    assert photos.cameras.sizes[0].tolist() == [shown.shape[1], shown.shape[0]]


def _saved(path: Path, pixels: np.ndarray, exif: Image.Exif) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize(("scene", "first", "second"), [("fox", 3, 6), ("redkitchen", 0, 4), ("fern", 0, 1)])
def test_real_cameras_agree_with_their_photos(shared: Path, scene: str, first: int, second: int) -> None:
    """Matched features lie on each other's epipolar lines; with OpenGL axes unconverted they would not."""
    cv2 = pytest.importorskip("cv2")
    photos = load_photos(shared / "data/scenes" / scene)
    assert photos.cameras is not None
    sift, features = cv2.SIFT_create(2000), []
    for i in (first, second):
        grey = cv2.cvtColor(photos.images[i].numpy(), cv2.COLOR_RGB2GRAY)
        points, words = sift.detectAndCompute(grey, None)
        features.append((np.array([p.pt for p in points]) + 0.5, words))
    matches = cv2.BFMatcher().knnMatch(features[0][1], features[1][1], k=2)
    good = [m for m, other in matches if m.distance < 0.7 * other.distance]
    assert len(good) > 60
    a = features[0][0][[m.queryIdx for m in good]]
    b = features[1][0][[m.trainIdx for m in good]]
    k, pose = photos.cameras.intrinsics.numpy(), photos.cameras.world_from_camera.numpy()

    def median_distance(poses: np.ndarray) -> float:
        relative = np.linalg.inv(poses[second]) @ poses[first]
        tx, ty, tz = relative[:3, 3]
        essential = np.array([[0, -tz, ty], [tz, 0, -tx], [-ty, tx, 0]]) @ relative[:3, :3]
        fundamental = np.linalg.inv(k[second]).T @ essential @ np.linalg.inv(k[first])
        lines = np.c_[a, np.ones(len(a))] @ fundamental.T
        return float(np.median(np.abs((lines * np.c_[b, np.ones(len(b))]).sum(1)) / np.hypot(*lines[:, :2].T)))

    assert median_distance(pose) < 1.5
    assert median_distance(pose @ np.diag([1.0, -1, -1, 1])) > 4


# Video


def test_videos_give_sharp_frames(tmp_path: Path) -> None:
    frames = torch.stack([torch.from_numpy(noise(i, 96, 64)) for i in range(40)])
    write_video(tmp_path / "walk.mp4", frames, 20)
    photos = load_photos(tmp_path / "walk.mp4")
    assert len(photos) == 8
    assert photos.names[0].startswith("walk_0000")
    assert photos.images[0].shape == (64, 96, 3)
    assert sorted(photos.names) == photos.names
    assert len(load_photos(tmp_path / "walk.mp4", max_photos=20)) == 20
    assert len(load_photos([tmp_path / "walk.mp4", save(tmp_path / "a.png")])) == 9


def test_real_video(shared: Path) -> None:
    photos = load_photos(shared / "data/clips/wildrgbd_03.mp4", max_photos=4)
    assert [tuple(i.shape) for i in photos.images] == [(160, 240, 3)] * 4


# Panoramas, by what they say of themselves


def pano(projection: str) -> bytes:
    """XMP as 360 degree cameras and phones write it."""
    return f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:ProjectionType="{projection}"/>
</rdf:RDF></x:xmpmeta>""".encode()


@pytest.mark.parametrize("projection", ["equirectangular", "cylindrical"])
def test_a_panorama_is_no_photo_but_a_view_cut_out_of_it_is(tmp_path: Path, projection: str) -> None:
    with Image.open(save(tmp_path / "plain.png", 3, 256, 128)) as picture:
        picture.convert("RGB").save(tmp_path / "whole.jpg", xmp=pano(projection))
        picture.convert("RGB").crop((0, 0, 128, 96)).save(tmp_path / "cut.jpg", xmp=pano(projection))
        picture.convert("RGB").save(tmp_path / "wide.jpg", xmp=pano("rectilinear"))
    with pytest.raises(UserError, match=rf"whole.jpg: a panorama \({projection}\).*cut views"):
        read_photo(tmp_path / "whole.jpg")
    for name in ("plain.png", "cut.jpg", "wide.jpg"):
        read_photo(tmp_path / name)


def boxes(kind: bytes, *inside: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, inside))) + kind + b"".join(inside)


def spherical(video: bytes) -> bytes:
    """An MP4 whose track says that it is a sphere, as YouTube's first specification has it."""
    xml = b"""<rdf:SphericalVideo xmlns:rdf="x" xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/">
<GSpherical:Spherical>true</GSpherical:Spherical><GSpherical:Stitched>true</GSpherical:Stitched>
<GSpherical:StitchingSoftware>x</GSpherical:StitchingSoftware>
<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType></rdf:SphericalVideo>"""
    uuid = boxes(b"uuid", bytes.fromhex("ffcc8263f8554a938814587a02521fdd"), xml)
    moov = video.index(b"moov") - 4
    assert video.rindex(b"mdat") < moov, "what comes after the index would move"
    trak = video.index(b"trak", moov) - 4
    end = trak + int.from_bytes(video[trak : trak + 4], "big")
    sized = bytearray(video[:end] + uuid + video[end:])
    for at in (moov, trak):
        sized[at : at + 4] = struct.pack(">I", int.from_bytes(video[at : at + 4], "big") + len(uuid))
    return bytes(sized)


def test_a_video_of_360_degrees_is_refused(tmp_path: Path) -> None:
    frames = torch.randint(0, 256, (4, 64, 128, 3), dtype=torch.uint8)
    with av.open(str(tmp_path / "plain.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", 10)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.numpy())))
        container.mux(stream.encode())
    (tmp_path / "walk.mp4").write_bytes(spherical((tmp_path / "plain.mp4").read_bytes()))
    assert len(load_photos(tmp_path / "plain.mp4")) == 4
    with pytest.raises(UserError, match=r"walk.mp4: a panorama \(360 degree video\)"):
        load_photos(tmp_path / "walk.mp4")


# Bad input


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def jpeg_bytes(folder: Path) -> bytes:
    return save(folder / "whole.jpeg", 7, 320, 240).read_bytes()


BAD_FILES: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "text": ("x.jpg", lambda _: b"my holiday notes", "not an image"),
    "empty": ("x.jpg", lambda _: b"", "empty file"),
    "cut off": ("x.jpg", lambda f: (d := jpeg_bytes(f))[: len(d) // 2], "damaged or cut off"),
    "cut in the header": ("x.jpg", lambda f: jpeg_bytes(f)[:30], "damaged|not an image"),
    "huge": ("x.png", lambda _: png_header(50_000, 50_000), "50000 x 50000 pixels is more than 200 million"),
    "tiny": ("x.png", lambda f: save(f / "t.png", 0, 8, 8).read_bytes(), "8 x 8 pixels is too small"),
    "one pixel": ("x.png", lambda _: png_header(1, 1), "1 x 1 pixels is too small"),
    "flat": ("x.png", lambda f: save(f / "t.png", 0, 400, 40).read_bytes(), "400 x 40 pixels is too small"),
    "cut png": ("x.png", lambda f: save(f / "t.png", 0).read_bytes()[:3000], "damaged or cut off"),
    "heic": ("x.heic", lambda _: b"\0\0\0\x18ftypheic" + b"\0" * 40, "pip install pillow-heif|not an image|damaged"),
    "heic named jpg": ("x.jpg", lambda _: b"\0\0\0\x18ftypheic" + b"\0" * 40, "pillow-heif|not an image|damaged"),
    "raw": ("x.cr2", lambda _: b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 40, "CR2 photos cannot be read"),
    "raw with a preview": ("x.dng", lambda f: save(f / "t.tif", 0).read_bytes(), "DNG photos cannot be read"),
    "24 bits per colour": ("x.tif", lambda f: _deep_tiff(f), "a TIFF of a kind that cannot be read"),
    "float": ("x.tif", lambda f: _float_tiff(f), "floating point"),
}


def _deep_tiff(folder: Path) -> bytes:
    """Three colours of 24 bits; written out, as Pillow knows none."""
    pixels = bytes(80 * 80 * 9)
    tags = [(256, 3, 1, 80), (257, 3, 1, 80), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 200)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 80), (279, 4, 1, len(pixels))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0" * 4
    head = b"II*\0" + struct.pack("<I", 14) + struct.pack("<3H", 24, 24, 24) + directory
    return head.ljust(200, b"\0") + pixels


def _float_tiff(folder: Path) -> bytes:
    Image.fromarray(np.random.default_rng(0).random((80, 80), dtype=np.float32)).save(folder / "f.tif")
    return (folder / "f.tif").read_bytes()


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("how", ["file", "folder"])
def test_bad_photos_are_named(tmp_path: Path, name: str, how: str) -> None:
    file, content, message = BAD_FILES[name]
    (tmp_path / "scratch").mkdir()
    data = content(tmp_path / "scratch")
    good = [save(tmp_path / f"photos/{i}.jpg", i) for i in range(3)]
    bad = tmp_path / "photos" / file
    bad.write_bytes(data)
    said = failing(*good, bad) if how == "file" else failing(tmp_path / "photos")
    assert said.startswith(f"{bad}: ")
    assert any(part in said for part in message.split("|")), said


def test_random_damage_never_ends_in_a_traceback(tmp_path: Path) -> None:
    rng, messages = np.random.default_rng(0), []
    exif = Image.Exif()
    exif.get_ifd(EXIF)[FOCAL_35MM] = 35
    for suffix in ("jpg", "png", "webp", "tif", "gif", "bmp"):
        data = save(tmp_path / f"a.{suffix}", 1, exif=exif).read_bytes()
        for _ in range(25):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 6):
                broken[at] = rng.integers(0, 256)
            (tmp_path / "b").write_bytes(broken[: rng.integers(len(data) // 2, len(data) + 1)])
            try:
                read_photo(tmp_path / "b")
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 50
    assert all(message.startswith(f"{tmp_path / 'b'}: ") for message in messages)


def test_all_bad_photos_are_named_at_once(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{i}.jpg", i) for i in range(6)]
    for i in (1, 4):
        files[i].write_text("no picture")
    (tmp_path / "10.cr2").write_text("raw")
    said = failing(tmp_path)
    assert said.startswith(f"{files[1]}: not an image")
    assert said.endswith("(2 more of 7 photos cannot be used: 4.jpg, 10.cr2)")


def test_heic_is_read_where_pillow_heif_is_there(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    images._reads_heif.cache_clear()
    picture = Image.fromarray(noise(3, 128, 96))
    pillow_heif.from_pillow(picture).save(tmp_path / "a.HEIC", quality=95)
    save(tmp_path / "b.jpg", 1)
    photos = load_photos(tmp_path)
    assert photos.names == ["a.HEIC", "b.jpg"]
    assert np.abs(photos.images[0].numpy().astype(int) - noise(3, 128, 96)).mean() < 8


def test_addresses_are_no_files(tmp_path: Path) -> None:
    for address in ("https://example.org/walk.mp4", "s3://bucket/photos", Path("http://example.org/a.jpg")):
        assert "URLs) are not read; download it first" in failing(address)
    save(tmp_path / "12:30:05.jpg", 0)
    save(tmp_path / "12:31:00.jpg", 1)
    assert load_photos(tmp_path).names == ["12:30:05.jpg", "12:31:00.jpg"]
    posed_scene(tmp_path / "run-1:2")
    (tmp_path / "run-1:2/images/0.png").rename(tmp_path / "run-1:2/1:0.png")
    edit(tmp_path / "run-1:2/transforms.json", rename_first("1:0.png"))
    assert len(load_photos(tmp_path / "run-1:2")) == 3


def test_nothing_to_load(tmp_path: Path) -> None:
    assert "no photos" in failing()
    assert failing(tmp_path / "gone") == f"{tmp_path / 'gone'}: no such file or folder"
    assert failing(tmp_path / "gone.json") == f"{tmp_path / 'gone.json'}: no such file or folder"
    assert failing(tmp_path / "gone.mp4") == f"{tmp_path / 'gone.mp4'}: no such file or folder"
    (tmp_path / "empty").mkdir()
    assert "no photos in this folder" in failing(tmp_path / "empty")
    (tmp_path / "empty" / "images").mkdir()
    assert "name its folder images" in failing(tmp_path / "empty")
    (tmp_path / "empty" / "film.MP4").touch()
    assert "name its video film.MP4" in failing(tmp_path / "empty")


def test_too_few_photos(tmp_path: Path) -> None:
    one = save(tmp_path / "one.png")
    assert "at least two" in failing(one)
    assert "at least two" in failing(tmp_path)
    save(tmp_path / "copy.png")
    assert "same picture" in failing(tmp_path)
    assert "only one photo (named 3 times)" in failing(one, one, one)
    save(tmp_path / "other.png", 1)
    assert load_photos(tmp_path).names == ["copy.png", "other.png"]


def test_no_permission(tmp_path: Path) -> None:
    secret = save(tmp_path / "secret.png")
    other = save(tmp_path / "other.png", 1)
    (tmp_path / "closed").mkdir()
    save(tmp_path / "closed" / "a.png")
    for path in (secret, tmp_path / "closed"):
        path.chmod(0)
    top = tmp_path
    while top.stat().st_uid == os.getuid() and top != top.parent and "pytest" in str(top):
        top.chmod(0o755)
        top = top.parent
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything
    try:
        assert failing(other, secret) == f"{secret}: no permission to read it"
        said = failing(tmp_path / "closed")
        assert str(tmp_path / "closed") in said
        assert "Permission denied" in said
    finally:
        if root:
            os.seteuid(0)
        secret.chmod(0o644)
        (tmp_path / "closed").chmod(0o755)


def rename_first(name: str) -> Callable[[dict], object]:
    return lambda top: top["frames"][0].update(file_path=name)


BAD_SCENES: dict[str, tuple[Callable[[dict], object], str]] = {
    "two lines": (rename_first("images/a\nb.png"), r"there is no image"),
    "missing photo": (rename_first("images/none.png"), "there is no image"),
    "missing photos": (
        lambda top: [frame.update(file_path=f"images/{i}.tif") for i, frame in enumerate(top["frames"])],
        "(2 more of 3 photos cannot be used: 1.tif, 2.tif)",
    ),
    "outside": (rename_first("../secret.png"), "leaves its folder"),
    "outside by a detour": (rename_first("images/../../secret.png"), "leaves its folder"),
    "outside with backslashes": (rename_first("..\\secret.png"), "leaves its folder"),
    "absolute": (rename_first("/etc/passwd"), "is absolute; write it as seen from"),
    "drive": (rename_first("C:\\photo.png"), "is absolute"),
    "loop": (rename_first("images/loop.png"), "there is no image"),
    "nul": (rename_first("images/\0.png"), "there is no image"),
    "folder": (rename_first("images"), "there is no image"),
    "dot": (rename_first("."), "there is no image"),
    "long": (rename_first("x" * 300), "cannot be read"),
    "no name": (lambda top: top["frames"][0].pop("file_path"), "no file_path"),
    "nan": (lambda top: top["frames"][0]["transform_matrix"][1].__setitem__(2, math.nan), "NaN"),
    "not rigid": (lambda top: top["frames"][0]["transform_matrix"][1].__setitem__(1, 2.0), "not a rotation"),
    "other shape": (lambda top: top["frames"][0].update(w=200), "only a scaled photo"),
    "folding lens": (lambda top: top["frames"][0].update(k1=-900.0), "fold"),
    "one frame": (lambda top: top.update(frames=top["frames"][:1]), "at least two"),
    "no frames": (lambda top: top.update(frames=[]), "no frames"),
}


@pytest.mark.parametrize("name", BAD_SCENES)
def test_bad_scenes_are_named(tmp_path: Path, name: str) -> None:
    change, message = BAD_SCENES[name]
    posed_scene(tmp_path / "scene")
    save(tmp_path / "secret.png", 5)
    (tmp_path / "scene/images/loop.png").symlink_to("loop.png")
    edit(tmp_path / "scene/transforms.json", change)
    assert message in failing(tmp_path / "scene/transforms.json")


def test_cameras_of_two_worlds_do_not_mix(tmp_path: Path) -> None:
    posed_scene(tmp_path / "a")
    posed_scene(tmp_path / "b")
    assert "cannot be mixed" in failing(tmp_path / "a", tmp_path / "b")
    assert "cannot be mixed" in failing(tmp_path / "a" / "images" / "0.png", tmp_path / "b")


# The scene


def two_photos(cameras: Cameras | None = None) -> Photos:
    images = [torch.from_numpy(noise(i)) for i in range(2)]
    return Photos(["a.png", "b.png"], images, [None, None], cameras)


def test_geometry_is_checked() -> None:
    with pytest.raises(UserError, match="'slam' is unknown"):
        build_scene(two_photos(), geometry="slam")
    with pytest.raises(UserError, match="no cameras came with these photos"):
        build_scene(two_photos(), geometry="given")
    still = Cameras.concatenate([look("3"), look("3")])
    with pytest.raises(UserError, match="same place"):
        build_scene(two_photos(still))


def test_photos_without_cameras_are_placed(shared: Path) -> None:
    """Two real photos about which nothing is known."""
    photos = load_photos(shared / "data/photos/vc-family")
    scene = build_scene(photos, depth_long_side=192)
    assert scene.geometry == "colmap"
    assert scene.photos.names == ["00.jpg", "01.jpg"]
    assert len(scene.points) > 5000
    assert bool(scene.points.positions.isfinite().all())


def test_given_cameras_stay_as_they_are(shared: Path) -> None:
    """Real photos: the cameras are the user's to the last bit, and points are seen where their photo has them."""
    photos = load_photos(shared / "data/scenes/fern")
    assert photos.cameras is not None
    pair = Photos(photos.names[:2], photos.images[:2], [None, None], photos.cameras[:2])
    scene = build_scene(pair, depth_long_side=192)
    assert scene.geometry == "given"
    assert torch.equal(scene.cameras.world_from_camera, photos.cameras.world_from_camera[:2])
    assert torch.equal(scene.cameras.intrinsics, photos.cameras.intrinsics[:2])
    assert len(scene.points) > 5000
    own = scene.points.photo == 1
    local = scene.points.positions[own].double() @ scene.cameras.camera_from_world[1, :3, :3].T
    local = local + scene.cameras.camera_from_world[1, :3, 3]
    pixels = local @ scene.cameras.intrinsics[1].T
    pixels = (pixels[:, :2] / pixels[:, 2:]).long()
    width, height = scene.cameras.sizes[1].tolist()
    inside = ((pixels >= 0) & (pixels < torch.tensor([width, height]))).all(1)
    assert float(inside.float().mean()) > 0.99
    shown = scene.photos.images[1][pixels[inside, 1], pixels[inside, 0]].float()
    assert float((shown - scene.points.colors[own][inside].float()).abs().median()) < 12
