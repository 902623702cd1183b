"""What docs/reproduce.md downloads or expects, made small and laid out as the published files are.

Weights are random, pictures are of procedural scenes; everything follows from a seed.

python scripts/rehearsal_inputs.py photos|outside|teacher|dust3r|dl3dv|mip-360|tandt FOLDER
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.data.prepare import split_of
from fvgen.data.recipe import PrepareRecipe
from fvgen.evaluation.protocols import window_split
from fvgen.models import VideoModel, preset
from fvgen.models.model import ModelConfig
from fvgen.models.viewcrafter.config import model_config
from fvgen.models.viewcrafter.keys import place, schedule_buffers
from fvgen.models.viewcrafter.text import TextConfig, build_text_tower
from fvgen.procedural import procedural_scene
from fvgen.scene.formats.colmap import write_colmap
from fvgen.scene.formats.transforms_json import write_transforms_json
from fvgen.scene.layouts import MIPNERF360

# Tests need the stand-in of the optional package as well; it lies there.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from recorded_dust3r import install, write_recorded

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
    assert config.vision is not None
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


FRAMES = 64  # of each film: clips of any stride and the views of the first table reach over 61
FILM = (240, 136)  # pixels: a quarter of what is downloaded of DL3DV
TRAIN, HELD_OUT = 5, 2  # scenes of footage
KINDS = ("room", "street", "hall", "garden", "tabletop", "shop", "ruin")
EVALUATED = {"garden": "mip-360", "truck": "tandt"}  # data set of each scene, its folder
OUTSIDE = ("depthsplat", "mvsplat360")


@dataclass(frozen=True)
class Film:
    """A procedural scene as it was filmed.

    Attributes:
        pictures: ``[N, H, W, 3]`` uint8.
        depths: ``[N, H, W]``, exact.
        cameras: ``N``.
    """

    pictures: NDArray[np.uint8]
    depths: NDArray[np.float32]
    cameras: Cameras

    def save(self, folder: Path, names: Sequence[str]) -> None:
        """The pictures under their names."""
        folder.mkdir(parents=True)
        for name, picture in zip(names, self.pictures):
            Image.fromarray(picture).save(folder / name, quality=95)


def footage_names() -> list[str]:
    """Names of DL3DV's kind for the scenes of footage, of which ``fvgen prepare`` keeps the last ones for measuring."""
    names = [hashlib.sha256(f"scene {number}".encode()).hexdigest() for number in range(1000)]
    chosen = []
    for split, count in (("train", TRAIN), ("heldout", HELD_OUT)):
        chosen += [name for name in names if split_of(name, PrepareRecipe().held_out) == split][:count]
    return chosen


def filmed(name: str, frames: int | None = None) -> Film:
    """The film of a scene of footage, of a scene to evaluate, or of ``photos``; the same each time."""
    frames = FRAMES if frames is None else frames
    scenes = [*footage_names(), *EVALUATED, "photos"]
    seed = scenes.index(name)
    kind = {"garden": "garden", "truck": "street"}.get(name, KINDS[seed % len(KINDS)])
    scene = procedural_scene(seed, frames, *FILM, kind=kind)
    pictures, depths = scene.film(scene.cameras, torch.linspace(0, 1, frames))
    return Film(pictures, depths, scene.cameras)


def make_footage(work: Path) -> None:
    """``DL3DV-10K/1K/NAME/`` with ``transforms.json`` at the size of the film and ``images_4``."""
    for name in footage_names():
        film, folder = filmed(name), work / "DL3DV-10K" / "1K" / name
        names = [f"frame_{k + 1:05d}.png" for k in range(FRAMES)]
        film.save(folder / "images_4", names)
        large = film.cameras.resized(*(4 * side for side in FILM))
        write_transforms_json(folder / "transforms.json", large, [f"images/{name}" for name in names])
        _record(work, name, film)


def make_evaluated(work: Path, name: str) -> None:
    """A scene with a COLMAP model: of Mip-NeRF 360 with ``images_4``, else of Tanks and Temples with ``images``."""
    film, folder, factor = filmed(name), work / EVALUATED[name] / name, 4 if name in MIPNERF360 else 1
    names = [f"{k + 1:05d}.jpg" for k in range(FRAMES)]
    film.save(folder / (f"images_{factor}" if factor > 1 else "images"), names)
    (folder / "sparse" / "0").mkdir(parents=True)
    large = film.cameras.resized(*(factor * side for side in FILM))
    write_colmap(folder / "sparse" / "0", large, names, *_points(film))
    _record(work, name, film)


def _points(film: Film) -> tuple[Tensor, Tensor]:
    """Some points of the first picture: positions and colours."""
    depth = torch.from_numpy(film.depths[0]).double()
    v, u = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) + 0.5 for side in depth.shape), indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], -1) @ torch.linalg.inv(film.cameras.intrinsics[0]).T
    pose = film.cameras.world_from_camera[0]
    positions = (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
    return positions.reshape(-1, 3)[::40], torch.from_numpy(film.pictures[0]).reshape(-1, 3)[::40]


def make_photos(work: Path) -> None:
    """Three photographs of a place, without cameras."""
    film = filmed("photos", 3)
    film.save(work / "photos", ["1.jpg", "2.jpg", "3.jpg"])
    _record(work, "photos", film)


def make_outside(work: Path) -> None:
    """Stand-ins for the answers of two other programs to ``fvgen-5x14``: the truth, blurred, and seconds made up."""
    for name in EVALUATED:
        film = filmed(name)
        for system, sigma in zip(OUTSIDE, (2.0, 1.0)):
            (work / system / name).mkdir(parents=True)
            for k in window_split(FRAMES, 5, 14)[1]:
                large = Image.fromarray(film.pictures[k]).resize((480, 272)).filter(ImageFilter.GaussianBlur(sigma))
                large.crop((16, 8, 464, 264)).save(work / system / name / f"{k + 1:05d}.png")
    for system in OUTSIDE:
        (work / system / "seconds.json").write_text(json.dumps(dict.fromkeys(EVALUATED, 1.0)) + "\n")


def _record(work: Path, name: str, film: Film) -> None:
    """What the stand-in of DUSt3R knows of a film."""
    write_recorded(work / "recorded" / name, film.pictures, film.cameras, film.depths)


def make_dust3r(work: Path) -> None:
    """The stand-in of DUSt3R, package and weights: it knows the exact depth of all films."""
    scenes = [*footage_names(), *EVALUATED, "photos"]
    install(work / "stand-ins", [work / "recorded" / name for name in scenes])


MAKERS: dict[str, Callable[[Path], None]] = {
    "photos": make_photos,
    "outside": make_outside,
    "teacher": lambda work: write_checkpoint(work / "model_sparse.ckpt", work / "small.yaml"),
    "dust3r": make_dust3r,
    "dl3dv": make_footage,
    "mip-360": lambda work: make_evaluated(work, "garden"),
    "tandt": lambda work: make_evaluated(work, "truck"),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    MAKERS[sys.argv[1]](Path(sys.argv[2]))
