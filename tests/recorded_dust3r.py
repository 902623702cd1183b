"""A stand-in for the package ``mini-dust3r`` that knows the answers, so that all code of ours around it runs.

DUSt3R's package is optional, and its weights are not at hand. This one is imported under the same names, has the same
functions with the same arguments, and answers as DUSt3R does: poses, focal lengths, depth and certainty of the pictures
that it is shown, in a world of its own (any similarity of the true one), pixel centres at whole numbers, principal
point in the middle. It has no network: it recognises each picture by sight among photographs whose cameras and exact
depth lie on the disk, and reads the answers off these. So what it says is right, and what comes out of fvgen can be
compared with the truth; where DUSt3R itself would err, it does not, unless it is told to.

How to use it (also across processes: everything it needs is in files):

    write_recorded(folder / "room", pictures, cameras, depths)  # a posed scene, with depth/NAME.npy beside images/
    weights = install(tmp / "package", [folder / "room"])       # the package, and "weights" that name the scenes
    with installed(tmp / "package"): ...                        # or PYTHONPATH=tmp/package:tests for fvgen itself
        ... --depth dust3r --geometry-weights WEIGHTS

Several scenes may be named; their photographs must differ to the eye. A picture may be any resampling of the whole
photograph (as ``fvgen prepare`` makes), not a part of it.

``turn_degrees`` turns the last photograph of each group that is aligned, in its place, by so much from the truth, and
``stretch`` multiplies its focal lengths: mistakes whose size is known.
"""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from fvgen.cameras import Cameras
from fvgen.cameras.poses import rotation_exp
from fvgen.scene.formats.transforms_json import read_transforms_json, write_transforms_json
from fvgen.scene.geometry import dust3r

CERTAINTY = 5.0
_THUMB = 24  # pixels across of what pictures are recognised by
_UNLIKE = 12.0  # mean difference of levels of what is another photograph

_FILES = {
    "__init__.py": "",
    "model.py": "from recorded_dust3r import AsymmetricCroCo3DStereo",
    "inference.py": "from recorded_dust3r import inference",
    "image_pairs.py": "from recorded_dust3r import make_pairs",
    "utils/__init__.py": "",
    "utils/device.py": "from recorded_dust3r import collate_with_cat",
    "cloud_opt/__init__.py": "from recorded_dust3r import global_aligner",
    "cloud_opt/base_opt.py": "from recorded_dust3r import global_alignment_iter",
}


def write_recorded(folder: Path, pictures: Tensor | np.ndarray, cameras: Cameras, depths: Tensor | np.ndarray) -> Path:
    """A posed scene in nerfstudio's layout, with the exact depth of each picture beside it.

    Args:
        folder: to write.
        pictures: ``[N, H, W, 3]`` uint8.
        cameras: ``N``; principal points in the middle, as DUSt3R assumes.
        depths: ``[N, H, W]`` z-depth, 0 where unknown.
    """
    names = [f"{k:04d}" for k in range(len(cameras))]
    for part in ("images", "depth"):
        (folder / part).mkdir(parents=True)
    for name, picture, depth in zip(names, np.asarray(pictures), np.asarray(depths)):
        Image.fromarray(picture).save(folder / "images" / f"{name}.png")
        np.save(folder / "depth" / f"{name}.npy", depth.astype(np.float32))
    write_transforms_json(folder / "transforms.json", cameras, [f"images/{name}.png" for name in names])
    return folder


def install(
    place: Path, scenes: Iterable[Path], seed: int = 0, turn_degrees: float = 0.0, stretch: float = 1.0
) -> Path:
    """Write the package into the folder ``place``, which then belongs on the path of modules.

    Args:
        place: new or of an earlier call.
        scenes: folders by `write_recorded`.
        seed: of the similarity transforms, one for each scene.
        turn_degrees, stretch: mistakes, see above.

    Returns:
        The folder for ``--geometry-weights``.
    """
    for name, text in _FILES.items():
        file = place / "mini_dust3r" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    if importlib.util.find_spec("cv2") is None:  # of which the adapter uses one function
        (place / "cv2.py").write_text("def setRNGSeed(seed: int) -> None:\n    pass\n")
    config = {"scenes": [str(Path(scene).resolve()) for scene in scenes], "seed": seed}
    weights = place / f"weights-{seed}-{turn_degrees:g}-{stretch:g}"
    weights.mkdir(exist_ok=True)
    config |= {"turn_degrees": turn_degrees, "stretch": stretch}
    (weights / "config.json").write_text(json.dumps(config))
    save_file({"nothing": torch.zeros(1)}, weights / "model.safetensors")
    return weights


@contextlib.contextmanager
def installed(place: Path) -> Iterator[None]:
    """Within the block, and in processes that are started in it, ``mini_dust3r`` is the package in ``place``."""
    before = list(sys.path)
    _forget()
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
        _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mini_dust3r"]:
        del sys.modules[name]


def similarity(seed: int, scene: int) -> tuple[float, Tensor, Tensor]:
    """Scale, rotation ``[3, 3]`` and translation ``[3]`` from the true world of a scene to the stand-in's."""
    drawn = torch.Generator().manual_seed(1000 * seed + scene)
    turn = rotation_exp(torch.randn(3, generator=drawn, dtype=torch.float64))
    shift = torch.randn(3, generator=drawn, dtype=torch.float64)
    return float(torch.rand((), generator=drawn, dtype=torch.float64) * 3 + 0.2), turn, shift


@lru_cache(maxsize=64)
def _recorded(scene: str, long_side: int) -> tuple[Cameras, list[Path], Tensor]:
    """Cameras, depth files and thumbnails ``[N, 24, 24]`` of a scene, as pictures of ``long_side`` are cut."""
    cameras, frames = read_transforms_json(Path(scene) / "transforms.json")
    files = [Path(scene) / frame["file_path"] for frame in frames]
    thumbs = []
    for file in files:
        with Image.open(file) as image:
            picture = dust3r.fitted(torch.from_numpy(np.array(image.convert("RGB"))))
        thumbs.append(_thumb(picture.image.float()))
    return cameras, [Path(scene) / "depth" / f"{file.stem}.npy" for file in files], torch.stack(thumbs)


def _thumb(image: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(image.mean(-1)[None], _THUMB)[0]


class AsymmetricCroCo3DStereo(nn.Module):
    """Has the name and the place of DUSt3R's network; its configuration names the scenes."""

    def __init__(self, scenes: Sequence[str], seed: int, turn_degrees: float, stretch: float, **unused: Any) -> None:
        super().__init__()
        self.scenes, self.seed, self.turn_degrees, self.stretch = list(scenes), seed, turn_degrees, stretch
        self.nothing = nn.Parameter(torch.zeros(1))

    def seen(self, view: dict[str, Any]) -> dict[str, Any]:
        """The answer for one view: pose ``[4, 4]``, focal length, depth ``[h, w]``."""
        image = (view["img"][0].movedim(0, -1) + 1) * 127.5
        height, width = image.shape[:2]
        number, scene, k = self._recognised(image)
        cameras, files, _ = _recorded(scene, dust3r.LONG_SIDE)
        depth = torch.from_numpy(np.load(files[k]))
        picture = dust3r.fitted(
            torch.zeros(*depth.shape, 3, dtype=torch.uint8)
        )  # the way that our adapter resamples and cuts
        assert picture.image.shape[:2] == (height, width), "a part of a photograph, or another shape"
        rows, columns = (
            (((torch.arange(side) + 0.5 + corner) * full / resized).long())
            for side, corner, full, resized in zip(
                (height, width), picture.corner[::-1], depth.shape, picture.resized[::-1]
            )
        )
        scale, turn, shift = similarity(self.seed, number)
        pose = cameras.world_from_camera[k].clone()
        pose[:3, :3], pose[:3, 3] = turn @ pose[:3, :3], scale * turn @ pose[:3, 3] + shift
        focal = float(cameras.intrinsics[k, 0, 0]) * picture.resized[0] / depth.shape[1] * self.stretch
        return {"pose": pose, "focal": focal, "depth": scale * depth[rows][:, columns]}

    def _recognised(self, image: Tensor) -> tuple[int, str, int]:
        found = []
        for number, scene in enumerate(self.scenes):
            unlike = (_recorded(scene, dust3r.LONG_SIDE)[2] - _thumb(image)).abs().mean((1, 2))
            found.append((float(unlike.min()), number, scene, int(unlike.argmin())))
        unlike, number, scene, k = min(found)
        assert unlike < _UNLIKE, f"this picture was not recorded (the most alike is {unlike:.1f} levels off)"
        return number, scene, k


def make_pairs(
    imgs: list[dict[str, Any]], scene_graph: str, prefilter: None, symmetrize: bool
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """All pairs of views, both ways."""
    assert (scene_graph, prefilter, symmetrize) == ("complete", None, True)
    return [(a, b) for a in imgs for b in imgs if a is not b]


def inference(
    pairs: list[tuple[dict[str, Any], dict[str, Any]]],
    model: AsymmetricCroCo3DStereo,
    device: str,
    batch_size: int,
    verbose: bool,
) -> dict[str, Any]:
    """The answers for pairs, one for each view."""
    assert next(model.parameters()).device.type == device
    assert not model.training
    answers = {view["idx"]: model.seen(view) for pair in pairs for view in pair}
    return {"views": answers, "turn_degrees": model.turn_degrees}


def collate_with_cat(whatever: list[dict[str, Any]], lists: bool) -> dict[str, Any]:
    """The answers of all pairs as one."""
    views = {index: view for answer in whatever for index, view in answer["views"].items()}
    return {"views": views, "turn_degrees": whatever[0]["turn_degrees"]}


class _Aligned(nn.Module):
    """The result of a global alignment: nothing is left to optimise."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__()
        self.views = [view for _, view in sorted(answer["views"].items())]
        self.turn = rotation_exp(torch.tensor([0.0, np.deg2rad(answer["turn_degrees"]), 0.0]))
        self.nothing = nn.Parameter(torch.zeros(1))

    def compute_global_alignment(self, init: str, niter: int) -> None:
        assert (init, niter) == ("mst", 0)

    def clean_pointcloud(self) -> "_Aligned":
        return self

    def get_im_poses(self) -> Tensor:
        poses = torch.stack([view["pose"] for view in self.views])
        poses[-1, :3, :3] = poses[-1, :3, :3] @ self.turn
        return poses.float()

    def get_focals(self) -> Tensor:
        return torch.tensor([[view["focal"]] for view in self.views])

    def get_depthmaps(self) -> list[Tensor]:
        return [view["depth"] for view in self.views]

    @property
    def im_conf(self) -> Iterator[Tensor]:
        return (torch.full_like(view["depth"], CERTAINTY) for view in self.views)


def global_aligner(dust3r_output: dict[str, Any], device: str, verbose: bool) -> _Aligned:
    """The scene that explains all answers."""
    return _Aligned(dust3r_output)


def global_alignment_iter(
    scene: _Aligned, step: int, steps: int, rate: float, lowest: float, optimizer: torch.optim.Optimizer, schedule: str
) -> float:
    """One step of the optimisation: there is nothing to do."""
    assert schedule == "linear"
    assert step < steps
    return 0.0
