"""Numbers recorded from the original teacher's code: whatever sizes, cases and runs a set of them holds.

The small set lies in ``tests/golden`` (its README gives the layout); larger ones, with the networks' weights, lie
outside the repository in ``FVGEN_GOLDEN``, by default ``../shared/golden``. A test names the files it needs with
``@pytest.mark.golden(...)`` and runs once on every set that has them.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.models.viewcrafter.keys import BUFFERS

TESTS = Path(__file__).resolve().parent
FOLDERS = [Path(os.environ.get("FVGEN_GOLDEN", TESTS.parent.parent / "shared" / "golden")), TESTS / "golden"]
TEXT_TOKENS, TOKENS_PER_FRAME = 77, 16  # written into the original's network, whatever its configuration
_PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "resampler": "image_proj_model.",
    "clip_text": "cond_stage_model.",
    "clip_image": "embedder.",
}


def sees_own_tokens(context: Tensor, frames: int) -> bool:
    """Whether each frame sees its own image tokens: the original decides that by the length of ``[B, L, D]``."""
    return context.shape[1] == TEXT_TOKENS + TOKENS_PER_FRAME * frames


@dataclass(frozen=True)
class GoldenSet:
    """One set of golden numbers: ``config_SUFFIX.json`` and the files beside it."""

    folder: Path
    suffix: str

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / f"config_{self.suffix}.json").read_text())

    def file(self, name: str) -> Path | None:
        """The file of ``unet.io``, ``unet.weights``, ``schedule`` and so on, where the set has it."""
        part, dot, kind = name.partition(".")
        candidates = [f"{part}_{self.suffix}{dot}{kind}", f"{part}{dot}{kind}"]
        return next((f for f in (self.folder / f"{c}.safetensors" for c in candidates) if f.is_file()), None)

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of that file; floats stored in fewer than 32 bits as float32, all else as it is."""
        file = self.file(name)
        assert file is not None, f"{name}: not in {self.folder}; the test's mark does not say that it needs it"
        narrow = (torch.float16, torch.bfloat16, torch.float8_e4m3fn)
        return {key: value.float() if value.dtype in narrow else value for key, value in load_file(file).items()}

    def cases(self, io: dict[str, Tensor], kind: str = "case") -> list[str]:
        """Names of the cases whose numbers the file holds, at least one."""
        found = sorted({key.split(".")[0] for key in io if key.startswith(kind) and "." in key})
        assert found, f"no {kind} in {self.folder}"
        return found

    def base_scale(self, prefix: str) -> float:
        """What the latents shrink to in the schedule of that prefix."""
        return round(self.read("schedule")[f"{prefix}scale_arr"][-1].item(), 6)

    def params(self, **more: Any) -> dict[str, Any]:
        """ViewCrafter's ``model.params`` of the end-to-end run."""
        scale = self.base_scale(self.config["e2e"]["schedule"])
        parts = ("unet_config", "first_stage_config", "image_proj_stage_config", "clip", "scale_factor")
        return {**{name: self.config[name] for name in parts}, "base_scale": scale, "use_dynamic_rescale": True, **more}

    def state_dict(self) -> dict[str, Tensor]:
        """All weights and buffers of the end-to-end run, by the keys of a checkpoint."""
        schedule, prefix = self.read("schedule"), self.config["e2e"]["schedule"]
        state = {name: schedule[prefix + name] for name in BUFFERS}
        for part, start in _PREFIXES.items():
            state.update({start + key: value for key, value in self.read(f"{part}.weights").items()})
        return state

    def write_yaml(self, file: Path, **more: Any) -> Path:
        """ViewCrafter's configuration file (JSON is YAML)."""
        file.write_text(json.dumps({"model": {"target": "", "params": self.params(**more)}}))
        return file

    def write_text(self, file: Path) -> Path:
        """The embeddings of the prompts that the end-to-end run's first clip was made with."""
        io = self.read("e2e.io")
        save_file({"prompt": io["text_emb"][0].clone(), "empty_prompt": io["null_text_emb"][0].clone()}, file)
        return file

    def cameras(self) -> Cameras:
        """The cameras that the recorded paths start from."""
        config, numbers = self.config["camera"], self.read("camera.io")
        n = len(numbers["c2ws"])
        intrinsics = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = numbers["focals"].reshape(n)
        intrinsics[:, :2, 2] = numbers["pp"].reshape(n, 2).double()
        return Cameras(numbers["c2ws"], intrinsics, torch.tensor([[config["width"], config["height"]]]).repeat(n, 1))


def golden_sets(*needed: str) -> list[GoldenSet]:
    """Every set that has all these files."""
    files = {file.resolve(): file for folder in FOLDERS for file in sorted(folder.glob("config_*.json"))}.values()
    sets = [GoldenSet(file.parent, file.stem.removeprefix("config_")) for file in files]
    return [one for one in sets if all(one.file(name) for name in needed)]
