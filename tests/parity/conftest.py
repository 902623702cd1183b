"""The golden numbers: whatever sizes, cases and runs the folder holds."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fvgen.models.viewcrafter.keys import BUFFERS

_PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "resampler": "image_proj_model.",
    "clip_text": "cond_stage_model.",
    "clip_image": "embedder.",
}


@dataclass(frozen=True)
class GoldenSet:
    """A folder of golden numbers, described by its one ``config_SUFFIX.json``."""

    folder: Path

    @cached_property
    def suffix(self) -> str:
        (file,) = self.folder.glob("config_*.json")
        return file.stem.removeprefix("config_")

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / f"config_{self.suffix}.json").read_text())

    def read(self, name: str) -> dict[str, torch.Tensor]:
        """``unet.io`` or ``unet.weights`` and so on, floats in float32; integers as they are."""
        part, _, kind = name.partition(".")
        candidates = [f"{part}_{self.suffix}.{kind}", f"{part}_{self.suffix}", part]
        file = next(f for f in (self.folder / f"{c}.safetensors" for c in candidates) if f.is_file())
        return {k: v.float() if v.is_floating_point() else v for k, v in load_file(file).items()}

    def cases(self, io: dict[str, torch.Tensor], kind: str = "case") -> list[str]:
        """Names of the cases whose numbers the file holds."""
        return sorted({key.split(".")[0] for key in io if key.startswith(kind) and "." in key})

    def params(self, **more: Any) -> dict[str, Any]:
        """ViewCrafter's ``model.params``."""
        schedule = self.read("schedule")
        prefix = self.config["schedule_prefix"]
        scale = round(schedule[f"{prefix}scale_arr"][-1].item(), 6)
        parts = ("unet_config", "first_stage_config", "image_proj_stage_config", "clip", "scale_factor")
        return {**{name: self.config[name] for name in parts}, "base_scale": scale, "use_dynamic_rescale": True, **more}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All weights and buffers, by the keys of a checkpoint."""
        schedule, prefix = self.read("schedule"), self.config["schedule_prefix"]
        state = {name: schedule[prefix + name] for name in BUFFERS}
        for part, start in _PREFIXES.items():
            state.update({start + key: value for key, value in self.read(f"{part}.weights").items()})
        return state

    def write_yaml(self, file: Path, **more: Any) -> Path:
        """ViewCrafter's configuration file (JSON is YAML)."""
        file.write_text(json.dumps({"model": {"target": "", "params": self.params(**more)}}))
        return file

    def write_text(self, file: Path) -> Path:
        """The embeddings of the prompts that the end-to-end run was made with."""
        io = self.read("e2e.io")
        save_file({"prompt": io["text_emb"][0], "empty_prompt": io["null_text_emb"][0]}, file)
        return file


@pytest.fixture(scope="session")
def golden_set(golden: Path) -> GoldenSet:
    return GoldenSet(golden)
