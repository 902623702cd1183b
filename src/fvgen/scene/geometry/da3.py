"""The estimator ``da3``: Depth Anything 3, which answers with cameras, depth and confidence in one pass.

Depth Anything 3 (Lin et al., 2025): the code is Apache-2.0, of its weights those named small and base are too, the
larger ones are CC BY-NC 4.0. This module calls the package ``depth-anything-3`` where the user has installed it.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from fvgen.scene.geometry.result import Picture, Seen, resample
from fvgen.scene.geometry.weights import Unusable, fill, optional, quiet, read_folder

_log = logging.getLogger(__name__)

MODULE = "depth_anything_3.model"
NAMES = {"base": "depth-anything/DA3-BASE", "small": "depth-anything/DA3-SMALL"}
RESTRICTED = {
    "large": "depth-anything/DA3-LARGE-1.1",
    "giant": "depth-anything/DA3-GIANT-1.1",
    "nested": "depth-anything/DA3NESTED-GIANT-LARGE-1.1",
}
_APACHE = ("da3-small", "da3-base", "da3metric-large", "da3mono-large")  # the package's names of such models
LONG_SIDE, GRID = 504, 14
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as for the network's training
_REFERENCE = "saddle_balanced"  # how the network chooses the view whose frame the others are expressed in


def fitted(images: list[Tensor]) -> list[Picture]:
    """Photos ``[H_i, W_i, 3]`` uint8 as the network was trained: 504 long, sides multiples of 14, cut to one size."""
    pictures = []
    for image in images:
        height, width = image.shape[:2]
        scale = LONG_SIDE / max(width, height)
        pictures.append(resample(image, *(max(GRID, round(side * scale / GRID) * GRID) for side in (width, height))))
    width, height = (min(picture.resized[axis] for picture in pictures) for axis in (0, 1))
    return [picture.cut(width, height) for picture in pictures]


def answer(images: list[Tensor], network: nn.Module, device: str, seed: int) -> list[Seen]:
    """Cameras, depth and certainty of all photos at once. Deterministic: nothing is drawn.

    The network's extrinsics are camera-from-world in OpenCV axes, its intrinsics pixels of the pictures with the
    principal point in their middle.

    Args:
        images: photos ``[H_i, W_i, 3]`` uint8.
        network: from `load_network`, on ``device``.
        device: its kind, such as ``cuda``.
        seed: changes nothing.

    Raises:
        Unusable: a model for single pictures, which finds no cameras.
    """
    pictures = fitted(images)
    batch = torch.stack([picture.image for picture in pictures]).movedim(-1, 1).to(device).float() / 255
    batch = (batch - batch.new_tensor(_MEAN)[:, None, None]) / batch.new_tensor(_STD)[:, None, None]
    fast = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    with torch.inference_mode(), torch.autocast(device, fast, enabled=device == "cuda"):
        found = network(batch[None], None, None, [], False, False, _REFERENCE)
    if "extrinsics" not in found or "depth_conf" not in found:
        raise Unusable("da3: this model finds no cameras; choose small, base, or another of the main series")
    return converted(
        pictures, found["extrinsics"][0], found["intrinsics"][0], found["depth"][0], found["depth_conf"][0]
    )


def converted(
    pictures: list[Picture], extrinsics: Tensor, intrinsics: Tensor, depths: Tensor, certainties: Tensor
) -> list[Seen]:
    """The network's numbers in the conventions of `fvgen.cameras`.

    Args:
        pictures: N of ``h`` x ``w``.
        extrinsics: ``[N, 3, 4]`` or ``[N, 4, 4]`` camera-from-world.
        intrinsics: ``[N, 3, 3]``.
        depths: ``[N, h, w]`` z-depth.
        certainties: ``[N, h, w]``, 1 the least.
    """
    poses = torch.eye(4, dtype=torch.float64).repeat(len(pictures), 1, 1)
    poses[:, :3] = extrinsics[:, :3].cpu().double()
    rotation = poses[:, :3, :3].transpose(1, 2).clone()
    poses[:, :3, 3:] = -rotation @ poses[:, :3, 3:]
    poses[:, :3, :3] = rotation
    return [Seen(*one) for one in zip(pictures, poses, intrinsics, depths, certainties)]


def load_network(path: Path) -> nn.Module:
    """The network of a folder with ``config.json``, which names one of the package's configurations, and weights.

    Raises:
        Unusable: the package is missing, or the files are not of its models.
    """
    with quiet():
        shapes = optional("depth_anything_3.registry", "da3").MODEL_REGISTRY
        tools = optional("depth_anything_3.cfg", "da3")
        optional(MODULE, "da3")
        config, state = read_folder(path, "da3")
        name = config.get("model_name")
        if name not in shapes:
            raise Unusable(f"weights of da3: {path} is of the model {name!r}; known are {', '.join(shapes)}")
        network: nn.Module = tools.create_object(tools.load_config(shapes[name]))
        fill(network, {key.removeprefix("model."): value for key, value in state.items()}, path, "da3")
    if name not in _APACHE:
        _log.info("da3: the weights of %s are CC BY-NC 4.0: not for commercial use", name)
    return network
