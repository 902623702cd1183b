"""How near renders come to frames that were never shown: PSNR and SSIM at their true cameras."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.evaluation.metrics.pixels import psnr_of_frames, ssim_skimage11
from fvgen.progress import track
from fvgen.reconstruction.capture import Capture, framed_shots
from fvgen.reconstruction.flight import render_each
from fvgen.reconstruction.gaussians import Gaussians
from fvgen.reconstruction.render import Renderer
from fvgen.scene.formats.transforms_json import read_records


@dataclass(frozen=True)
class HeldOut:
    """Frames to compare with.

    Attributes:
        names: of the ``F`` frames.
        images: ``[F, H, W, 3]`` float 0..1.
        cameras: ``F``, in the world of the Gaussians.
    """

    names: list[str]
    images: Tensor
    cameras: Cameras


def read_held_out(path: str | Path, capture: Capture) -> HeldOut:
    """The frames of a ``transforms.json`` that are none of the photographs, scaled and cut to the capture's size.

    Raises:
        UserError: the capture's cameras were not given with its photographs, so that worlds differ; no frame is left.
    """
    path = Path(path)
    if capture.geometry != "given":
        raise UserError(f"`truth` {path}: these cameras were not given with the photos, so the worlds differ")
    used = {name for name in capture.photo if name is not None}
    records = track(read_records(path), "reading true frames")
    found = list(framed_shots(records, path.parent, used, capture.cameras.size))
    if not found:
        raise UserError(f"`truth` {path}: all of its frames are photographs that were used")
    names, images, cameras, _ = zip(*found)
    return HeldOut(list(names), torch.stack(images), Cameras.concatenate(list(cameras)))


def render_all(gaussians: Gaussians, cameras: Cameras, renderer: Renderer) -> Tensor:
    """``[F, H, W, 3]`` float 0..1 in front of black, on the CPU; cameras share one size."""
    return torch.stack(list(render_each(gaussians, cameras, renderer)))


def score(rendered: Tensor, truth: Tensor) -> dict[str, list[float]]:
    """``psnr`` (dB) and ``ssim`` of each of the frames ``[F, H, W, 3]``, as docs/evaluation.md defines them."""
    values = {"psnr": psnr_of_frames(rendered, truth), "ssim": ssim_skimage11(rendered, truth)}
    return {name: [round(v, 4) for v in value.tolist()] for name, value in values.items()}
