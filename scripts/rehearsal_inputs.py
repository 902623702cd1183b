"""What docs/reproduce.md downloads, made small on the spot: a checkpoint, footage, scenes to evaluate, outside frames.

Everything is laid out as the published files are, from procedural scenes and random weights, by a seed alone.

python scripts/rehearsal_inputs.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.data.prepare import split_of
from fvgen.data.procedural import ProceduralScene, procedural_scene
from fvgen.data.recipe import PrepareRecipe
from fvgen.models import VideoModel, preset
from fvgen.models.model import ModelConfig
from fvgen.models.viewcrafter.buffers import schedule_buffers
from fvgen.models.viewcrafter.config import model_config
from fvgen.models.viewcrafter.keys import place
from fvgen.models.viewcrafter.text import TextConfig, build_text_tower
from fvgen.scene.formats.colmap import write_colmap
from fvgen.scene.formats.transforms_json import write_transforms_json

# ViewCrafter's network but for its widths: the same blocks, the same keys in UNet, autoencoder and resampler.
PARAMS: dict[str, Any] = {
    "rescale_betas_zero_snr": True,
    "parameterization": "v",
    "linear_start": 0.00085,
    "linear_end": 0.012,
    "timesteps": 1000,
    "image_size": [8, 16],
    "scale_factor": 0.18215,
    "use_dynamic_rescale": True,
    "base_scale": 0.3,
    "unet_config": {
        "params": {
            **{"in_channels": 8, "out_channels": 4, "model_channels": 32, "attention_resolutions": [4, 2, 1]},
            **{"num_res_blocks": 2, "channel_mult": [1, 2, 3, 3], "dropout": 0.1, "num_head_channels": 32},
            **{"transformer_depth": 1, "context_dim": 32, "use_linear": True, "temporal_conv": True},
            **{"temporal_attention": True, "temporal_selfatt_only": True, "use_relative_position": False},
            **{"addition_attention": True, "image_cross_attention": True, "default_fs": 10, "fs_condition": True},
        }
    },
    "first_stage_config": {
        "params": {
            "embed_dim": 4,
            "ddconfig": {
                **{"double_z": True, "z_channels": 4, "in_channels": 3, "out_ch": 3, "ch": 32},
                **{"ch_mult": [1, 2, 3, 3], "num_res_blocks": 2, "attn_resolutions": []},
            },
        }
    },
    "image_proj_stage_config": {
        "params": {
            **{"dim": 32, "depth": 4, "dim_head": 16, "heads": 2, "num_queries": 16, "embedding_dim": 32},
            **{"output_dim": 32, "ff_mult": 2, "video_length": 16},
        }
    },
    "clip": {
        "vision_cfg": {"image_size": 56, "patch_size": 14, "width": 32, "layers": 2, "head_width": 16},
        "text_cfg": {"vocab_size": 49408, "context_length": 77, "width": 32, "layers": 2, "heads": 2},
    },
}


def write_checkpoint(file: Path, yaml: Path, seed: int = 0) -> None:
    """A checkpoint in ViewCrafter's layout with random weights, and the YAML that tells its widths."""
    config, text = model_config(PARAMS, preset("viewcrafter-25-sparse"))
    torch.manual_seed(seed)
    torch.save({"state_dict": random_state(config, text), "global_step": 0}, file)
    yaml.write_text(json.dumps({"model": {"params": PARAMS}}, indent=1) + "\n")


def random_state(config: ModelConfig, text: TextConfig) -> dict[str, Tensor]:
    """Every tensor of such a checkpoint by its key, random where an untrained network has zeros."""
    parts = {name: module.state_dict() for name, module in VideoModel.build(config).components().items()}
    parts["text_encoder"] = {
        name: torch.ones(value.shape) if "norm" in name and name.endswith("weight") else torch.zeros(value.shape)
        for name, value in build_text_tower(text).state_dict().items()
    }
    for value in [value for part in parts.values() for value in part.values()]:
        if value.ndim > 1 and not bool(value.any()):
            value.normal_(std=0.02)
    state = {**schedule_buffers(config.schedule)}
    for key in checkpoint_keys(parts):
        where = place(key, len(config.autoencoder.channels))
        state[key] = where.join([parts[where.component][name] for name in where.names])
    return state | _leftovers(state, text.width, config.vision.hidden_size)


def _leftovers(state: dict[str, Tensor], width: int, vision: int) -> dict[str, Tensor]:
    """What OpenCLIP's two towers carry along and nothing uses."""
    found = {"embedder.model.visual.proj": torch.randn(vision, width) * 0.02}
    for tower in ("cond_stage_model.model", "embedder.model"):
        found[f"{tower}.text_projection"] = torch.randn(width, width) * 0.02
        found[f"{tower}.logit_scale"] = torch.tensor(4.6)
    for name in ("positional_embedding", "token_embedding.weight", "ln_final.weight", "ln_final.bias"):
        found[f"embedder.model.{name}"] = state[f"cond_stage_model.model.{name}"].clone()
    return found


_BLOCK = [
    (r"\.block\.", ".transformer_blocks.0."),
    (r"\.ff\.proj_in\.", ".ff.net.0.proj."),
    (r"\.ff\.proj_out\.", ".ff.net.2."),
    (r"_image\.weight$", "_ip.weight"),
    (r"(attn\d)\.to_out\.", r"\1.to_out.0."),
]
_RES = [
    (r"\.res\.norm_in\.", ".0.in_layers.0."),
    (r"\.res\.conv_in\.", ".0.in_layers.2."),
    (r"\.res\.embed\.", ".0.emb_layers.1."),
    (r"\.res\.norm_out\.", ".0.out_layers.0."),
    (r"\.res\.conv_out\.", ".0.out_layers.3."),
    (r"\.res\.skip\.", ".0.skip_connection."),
    (r"\.res\.temporal\.0\.conv\.", ".0.temopral_conv.conv1.2."),
    (r"\.res\.temporal\.(\d)\.norm\.", lambda m: f".0.temopral_conv.conv{int(m[1]) + 1}.0."),
    (r"\.res\.temporal\.(\d)\.conv\.", lambda m: f".0.temopral_conv.conv{int(m[1]) + 1}.3."),
]
_CLIP = [
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"embeddings\.token_embedding", "token_embedding"),
    (r"embeddings\.class_embedding", "class_embedding"),
    (r"embeddings\.patch_embedding", "conv1"),
    (r"final_layer_norm", "ln_final"),
    (r"pre_layrnorm", "ln_pre"),
    (r"post_layernorm", "ln_post"),
    (r"encoder\.layers\.", "transformer.resblocks."),
    (r"self_attn\.[qkv]_proj\.", "attn.in_proj_"),
    (r"self_attn", "attn"),
    (r"layer_norm", "ln_"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
]
# Our names to ViewCrafter's, the other way round than fvgen.models.viewcrafter.keys; rules apply one after the other.
_RULES: dict[str, list[tuple[str, Any]]] = {
    "unet": [
        (r"^time_embed\.linear_in", "time_embed.0"),
        (r"^time_embed\.linear_out", "time_embed.2"),
        (r"^fs_embed\.linear_in", "fps_embedding.0"),
        (r"^fs_embed\.linear_out", "fps_embedding.2"),
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
        (r"^init_temporal\.", "init_attn.0."),
        *_BLOCK,
        *_RES,
        (r"\.spatial\.", ".1."),
        (r"\.temporal\.", ".2."),
        (r"^encoder\.(\d+)\.", lambda m: f"input_blocks.{int(m[1]) + 1}."),
        (r"^decoder\.", "output_blocks."),
        (r"^(input_blocks\.\d+)\.resample\.conv\.", r"\1.0.op."),
        (r"^middle\.first\.", "middle_block."),
        (r"^middle\.second\.0\.", "middle_block.3."),
        (r"^", "model.diffusion_model."),
    ],
    "vae": [
        (r"conv_norm_out", "norm_out"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_", "mid.attn_1."),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"down_blocks\.(\d)", r"down.\1"),
        (r"up_blocks\.(\d)", lambda m: f"up.{3 - int(m[1])}"),
        (r"\.resnets\.", ".block."),
        (r"(down|up)samplers\.0", r"\1sample"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"^", "first_stage_model."),
    ],
    "conditioner": [
        (r"attention\.norm_image", "0.norm1"),
        (r"attention\.norm_latents", "0.norm2"),
        (r"attention\.", "0."),
        (r"^(resampler\.layers\.\d+)\.norm\.", r"\1.1.0."),
        (r"linear_in", "1.1"),
        (r"linear_out", "1.3"),
        *[(rf"^(tower\..*){theirs}", rf"\1{ours}") for theirs, ours in _CLIP],
        (r"^tower\.", "embedder.model.visual."),
        (r"^resampler\.", "image_proj_model."),
    ],
    "text_encoder": [*_CLIP, (r"^", "cond_stage_model.model.")],
}


def checkpoint_keys(parts: dict[str, dict[str, Tensor]]) -> list[str]:
    """The keys that a checkpoint has for the tensors of a model.

    Args:
        parts: tensors by component and name; the autoencoder has four levels.

    Raises:
        ValueError: a tensor for which there is no key, or a key that is not read as that tensor.
    """
    keys: dict[str, None] = {}
    for component, tensors in parts.items():
        for name in tensors:
            if component == "conditioner" and name in ("prompt", "empty_prompt"):
                continue  # computed, not in the checkpoint
            key = name
            for pattern, replacement in _RULES[component]:
                key = re.sub(pattern, replacement, key)
            stage = name.split(".resample.")[0]
            key = key.replace(".resample.", ".3." if f"{stage}.spatial.norm.weight" in tensors else ".1.")
            if component != place(key).component or name not in place(key).names:
                raise ValueError(f"{component} {name} is not {key} in a checkpoint")
            keys[key] = None
    return list(keys)


FRAMES = 64  # of each film: the strides of clips reach over 61 frames, and so do the views of the first table
FILM = (240, 136)  # pixels; DL3DV's are 480x270, those of Mip-NeRF 360 and of Tanks and Temples larger
EXACT = "exact.npz"  # beside each scene's pictures: depth and cameras for the stand-in of DUSt3R
KINDS = ("room", "street", "garden", "hall", "ruin", "tabletop")


@dataclass(frozen=True)
class Film:
    """A procedural scene as it was filmed.

    Attributes:
        pictures: ``[N, H, W, 3]`` uint8.
        depths: ``[N, H, W]`` exact, along the axis of view.
        cameras: ``N``.
    """

    pictures: NDArray[np.uint8]
    depths: NDArray[np.float32]
    cameras: Cameras

    def write(self, folder: Path, images: str, names: list[str]) -> None:
        """The pictures under their names in ``folder/images``, and what is exact in ``folder/exact.npz``."""
        (folder / images).mkdir(parents=True)
        for name, picture in zip(names, self.pictures):
            Image.fromarray(picture).save(folder / images / name, quality=95)
        poses, intrinsics = self.cameras.world_from_camera.numpy(), self.cameras.intrinsics.numpy()
        np.savez(
            folder / EXACT, names=np.array(names), depths=self.depths, world_from_camera=poses, intrinsics=intrinsics
        )


def filmed(seed: int, kind: str, frames: int = FRAMES, size: tuple[int, int] = FILM) -> Film:
    """A scene of a kind and a move through it."""
    scene = procedural_scene(seed, frames, *size, kind=kind)
    pictures, depths = scene.film(scene.cameras, torch.linspace(0, 1, frames))
    return Film(pictures, depths, scene.cameras)


def write_dl3dv(folder: Path, train: int = 4, held_out: int = 2, frames: int = FRAMES) -> None:
    """Scenes as DL3DV-10K has them, ``1K/HASH/transforms.json`` with ``images_8``, in names that are split so."""
    wanted = {"train": train, "heldout": held_out}
    number = 0
    while any(wanted.values()):
        name = hashlib.sha256(f"scene {number}".encode()).hexdigest()
        split = split_of(name, PrepareRecipe().held_out)
        number += 1
        if wanted[split]:
            wanted[split] -= 1
            place_in = folder / "1K" / name
            film = filmed(number, KINDS[sum(wanted.values()) % len(KINDS)], frames)
            names = [f"frame_{k + 1:05d}.png" for k in range(frames)]
            film.write(place_in, "images_8", names)
            write_transforms_json(
                place_in / "transforms.json",
                film.cameras.resized(*(8 * side for side in film.cameras.size)),
                [f"images/{name}" for name in names],
                extra={"applied_transform": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]},
            )


def write_colmap_scene(folder: Path, seed: int, kind: str, factor: int, frames: int = FRAMES) -> Film:
    """A scene with a COLMAP model, its pictures reduced by a factor: Mip-NeRF 360's; with 1, Tanks and Temples' of 3DGS."""
    film = filmed(seed, kind, frames)
    names = [f"{k + 1:05d}.jpg" for k in range(frames)]
    film.write(folder, "images" if factor == 1 else f"images_{factor}", names)
    (folder / "sparse" / "0").mkdir(parents=True)
    large = film.cameras.resized(*(factor * side for side in film.cameras.size))
    write_colmap(folder / "sparse" / "0", large, names, *_points(film))
    return film


def _points(film: Film, every: int = 40) -> tuple[Tensor, Tensor]:
    """Some points of the first picture: positions and colours."""
    depth = torch.from_numpy(film.depths[0]).double()
    v, u = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) + 0.5 for side in depth.shape), indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], -1) @ torch.linalg.inv(film.cameras.intrinsics[0]).T
    pose = film.cameras.world_from_camera[0]
    positions = (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
    return positions.reshape(-1, 3)[::every], torch.from_numpy(film.pictures[0]).reshape(-1, 3)[::every]
