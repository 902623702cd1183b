"""The estimator ``dust3r``: DUSt3R and its global alignment with the settings of the original teacher's program.

DUSt3R (Wang et al., CVPR 2024), code and weights, is CC BY-NC-SA 4.0: not for commercial use. Nothing of it is part
of fvgen; this module calls the package ``mini-dust3r`` where the user has installed it.
"""

import argparse
import ast
import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fvgen.errors import UserError
from fvgen.files import genuine
from fvgen.progress import track
from fvgen.scene.geometry.result import Picture, Seen, resample
from fvgen.scene.geometry.weights import Unusable, fill, first_line, optional, quiet, read_folder

_log = logging.getLogger(__name__)

MODULE = "mini_dust3r.model"
NAMES = {
    "512_dpt": "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt",
    "512_linear": "naver/DUSt3R_ViTLarge_BaseDecoder_512_linear",
}
RESTRICTED: dict[str, str] = {}  # all are not for commercial use, which is said when they are loaded
LONG_SIDE, GRID = 512, 16
ITERATIONS, RATE, LOWEST_RATE = 300, 0.01, 1e-6
_NETWORK = "AsymmetricCroCo3DStereo"
# The classes for portrait pictures in one batch with landscape ones; here each pair is a batch of its own.
_PLAIN = {"patch_embed_cls": "PatchEmbedDust3R", "landscape_only": False}


def answer(images: list[Tensor], network: nn.Module, device: str, seed: int) -> list[Seen]:
    """Cameras, depth and certainty of photos ``[H_i, W_i, 3]`` uint8: see `fitted` and `align`."""
    return align([fitted(image) for image in images], network, device, seed)


def fitted(image: Tensor) -> Picture:
    """A photo ``[H, W, 3]`` as the network was trained: 512 long, sides multiples of 16, a square cut to 4:3."""
    height, width = image.shape[:2]
    scale = LONG_SIDE / max(width, height)
    picture = resample(image, round(width * scale), round(height * scale))
    cut = [side // GRID * GRID for side in picture.resized]
    if picture.resized[0] == picture.resized[1]:
        cut[1] = cut[1] * 3 // 4
    if min(cut) == 0:
        raise UserError(f"dust3r cannot use a photo of {width} x {height} pixels: it is too narrow")
    return picture.cut(*cut)


def align(pictures: list[Picture], network: nn.Module, device: str, seed: int = 0) -> list[Seen]:
    """Point maps of all ordered pairs, then depth, poses and focal lengths that explain them all.

    The settings are the original program's: every pair both ways, start from the spanning tree of the most confident
    pairs, 300 steps of Adam at 0.01 falling linearly, distances weighted by the logarithm of the confidence, a focal
    length per photo, principal points fixed. Points that another photo, more confident, looks through lose all
    confidence.

    Args:
        pictures: N >= 2.
        network: point maps of two views, on ``device``.
        device: ``cpu``, ``cuda`` or ``mps``.
        seed: of the robust poses at the start.

    Raises:
        UserError: the package is missing or the alignment fails.
    """
    views = []  # as the package wants them: picture in -1..1, its true size, its number
    for i, picture in enumerate(pictures):
        image, shape = picture.image.movedim(-1, 0)[None].float() / 127.5 - 1, picture.image.shape[:2]
        views.append({"img": image, "true_shape": np.array([shape], np.int32), "idx": i, "instance": str(i)})
    infer = optional("mini_dust3r.inference", "dust3r").inference
    make_pairs = optional("mini_dust3r.image_pairs", "dust3r").make_pairs
    merge = optional("mini_dust3r.utils.device", "dust3r").collate_with_cat
    aligner = optional("mini_dust3r.cloud_opt", "dust3r").global_aligner
    step = optional("mini_dust3r.cloud_opt.base_opt", "dust3r").global_alignment_iter
    optional("cv2", "dust3r").setRNGSeed(seed)
    pairs = make_pairs(views, scene_graph="complete", prefilter=None, symmetrize=True)
    answers = [infer([pair], network, device, batch_size=1, verbose=False) for pair in track(pairs, "dust3r pairs")]
    mixed = len({tuple(picture.image.shape) for picture in pictures}) > 1
    scene = aligner(merge(answers, lists=mixed), device=device, verbose=False)
    try:
        scene.compute_global_alignment(init="mst", niter=0)
        optimizer = torch.optim.Adam([p for p in scene.parameters() if p.requires_grad], lr=RATE, betas=(0.9, 0.9))
        for i in track(range(ITERATIONS), "dust3r alignment"):
            loss = step(scene, i, ITERATIONS, RATE, LOWEST_RATE, optimizer, "linear")
            if not math.isfinite(loss):
                raise ValueError("the alignment diverged")
        scene = scene.clean_pointcloud()
    except (ValueError, AssertionError, ArithmeticError, TypeError, RuntimeError) as error:
        raise UserError(f"dust3r cannot align these photos ({first_line(error)}): try `geometry` colmap") from None
    return converted(pictures, scene.get_im_poses(), scene.get_focals(), scene.get_depthmaps(), list(scene.im_conf))


def converted(
    pictures: list[Picture], poses: Tensor, focals: Tensor, depths: list[Tensor], certainties: list[Tensor]
) -> list[Seen]:
    """DUSt3R's numbers in the conventions of `fvgen.cameras`.

    Its poses are camera-to-world in OpenCV axes already. It counts pixel centres in whole numbers and puts the
    principal point at (w / 2, h / 2) there, which is half a pixel further where centres are at .5.

    Args:
        pictures: N of ``h`` x ``w``.
        poses: ``[N, 4, 4]``.
        focals: ``[N]`` or ``[N, 1]`` in pixels of the pictures.
        depths: N of ``[h, w]``.
        certainties: N of ``[h, w]``, 1 the least, 0 where another view contradicts.
    """
    seen = []
    for i, picture in enumerate(pictures):
        height, width = picture.image.shape[:2]
        focal = float(focals[i].reshape(-1)[0])
        matrix = torch.tensor([[focal, 0, width / 2 + 0.5], [0, focal, height / 2 + 0.5], [0, 0, 1]]).double()
        seen.append(Seen(picture, poses[i], matrix, depths[i], certainties[i]))
    return seen


def load_network(path: Path) -> nn.Module:
    """The network of a ``.pth`` checkpoint, or of a folder with ``config.json`` and ``model.safetensors``.

    Raises:
        Unusable: the package is missing, or the file is no checkpoint of DUSt3R.
    """
    with quiet():
        kind = getattr(optional(MODULE, "dust3r"), _NETWORK)
        if path.is_dir() or path.suffix == ".safetensors":
            config, state = read_folder(path, "dust3r")
        else:
            config, state = _read_checkpoint(path)
        config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
        try:
            network: nn.Module = kind(**(config | _PLAIN))
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            raise Unusable(f"weights of dust3r: {path} has a configuration that cannot be built ({error})") from None
        fill(network, state, path, "dust3r")
    _log.info("dust3r: code and weights are CC BY-NC-SA 4.0: not for commercial use")
    return network


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of DUSt3R's own format, whose configuration is the text of a Python call."""
    genuine(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        text, state = content["args"].model, content["model"]
    except Exception as error:  # torch raises errors of many kinds for what is no checkpoint
        raise Unusable(f"weights of dust3r: {path} is no checkpoint of DUSt3R ({first_line(error)})") from None
    return parse_call(text, path), state


def parse_call(text: str, path: Path) -> dict[str, Any]:
    """The keyword arguments of a call with plain values, or ``inf``, as DUSt3R's checkpoints hold it; none is executed.

    Args:
        text: the call.
        path: where it comes from, for the message.

    Raises:
        Unusable: anything else.
    """
    try:
        call = ast.parse(re.sub(r"\binf\b", "1e999", text), mode="eval").body
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != _NETWORK or call.args:
            raise ValueError(text)
        return {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, TypeError):
        raise Unusable(f"weights of dust3r: {path} names the network {str(text)[:80]!r}, not {_NETWORK}") from None
