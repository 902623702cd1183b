"""What is compared: models of ours, what the guide gives without one, and the frames of outside systems."""

import hashlib
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.store import read_frames, read_seconds, safe_name
from fvgen.evaluation.task import Framing, Task
from fvgen.hub import model_and_steps
from fvgen.models.model import ModelConfig
from fvgen.packages import require_inpainting
from fvgen.pictures import to_bytes
from fvgen.pipeline import Clock, NovelViewPipeline

PLAIN = ("guide", "guide+telea", "completed-guide")
_WIDTHS = ("", "+blur0.7", "+blur1.0", "+blur1.4")
BLURRED = (
    "guide",
    *(f"{base}{blur}" for base in ("guide+telea", "points+telea") for blur in _WIDTHS),
    "completed-guide",
)


Made = tuple[Tensor, dict[str, float]]  # frames [F, H, W, 3] uint8, and seconds by stage, none where unknown


class System(Protocol):
    """Anything that makes the frames that a task asks for.

    Attributes:
        name: unique in a run; heads its column.
        framing: of its frames for landscape scenes; ``None``: as our systems make them.
    """

    name: str
    framing: Framing | None

    def definition(self, task: Task) -> dict[str, Any]:
        """Plain values on which its frames depend, besides the task: where they change, frames are made again."""

    def make(self, task: Task) -> Made:
        """The frames that it answers with, ``[F, H, W, 3]`` uint8, and seconds by stage."""


class Baseline:
    """The guide of a task, as it is or with its holes filled without a model.

    ``guide`` has black holes, ``guide+telea`` fills them by inpainting (Telea 2004, OpenCV, radius 3), ``points+telea``
    renders points of guessed depth too and inpaints what is left, ``completed-guide`` is what models start from;
    ``+blurS`` is a Gaussian blur by S pixels.

    Args:
        name: one of ``BLURRED``, or another width of the blur.

    Raises:
        UserError: no such baseline.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.framing: Framing | None = None
        self._base, _, blur = name.partition("+blur")
        try:
            self._sigma = float(blur or 0)
        except ValueError:
            self._sigma = -1.0
        if self._base not in BLURRED or self._sigma < 0 or (blur and not self._sigma):
            raise UserError(f"`baselines` {name}: choose of {', '.join(BLURRED)}")
        if self._base.endswith("telea"):
            require_inpainting()

    def definition(self, task: Task) -> dict[str, Any]:
        """The name of the baseline, on which alone its answer depends."""
        return {"kind": "baseline", "name": self.name}

    def make(self, task: Task) -> Made:
        """Its frames ``[F, H, W, 3]``; the seconds are those of rendering the guide and of the filling."""
        guide, chosen = task.guide, task.positions
        start = time.perf_counter()
        completed, coverage = guide.completed[chosen].float() / 255, guide.coverage[chosen]
        known = guide.told[chosen] > 0
        if self._base == "completed-guide":
            pictures = completed
        elif self._base == "points+telea":
            pictures = telea(completed * known[..., None], known)
        else:
            pictures = completed * coverage[..., None]
            pictures = telea(pictures, coverage) if self._base == "guide+telea" else pictures
        if self._sigma:
            from scipy.ndimage import gaussian_filter

            pictures = torch.from_numpy(gaussian_filter(pictures.numpy(), (0, self._sigma, self._sigma, 0)))
        return to_bytes(pictures), {"render": task.seconds["render"], "fill": time.perf_counter() - start}


def checked_steps(text: str, config: ModelConfig, steps: int | None) -> int:
    """The denoising steps of a model written ``text``: those that are said, else its own.

    Raises:
        UserError: a number that its schedule cannot be cut into.
    """
    steps = config.sampling.steps if steps is None else steps
    if not 1 <= steps <= config.schedule.num_timesteps:
        raise UserError(f"`models` {text}: choose 1 to {config.schedule.num_timesteps} steps")
    return steps


class Model:
    """A model of ours at a number of steps.

    Args:
        text: ``NAME`` or ``NAME:STEPS``; the name of a packaged model or a model folder.
        device, dtype: see `NovelViewPipeline.from_pretrained`.
        seed: of the noise, the same for every task.

    Raises:
        UserError: no such model, or a number of steps it cannot take.
    """

    def __init__(self, text: str, device: str = "auto", dtype: str = "auto", seed: int = 0) -> None:
        model, self.steps = model_and_steps(text)
        self.pipeline = NovelViewPipeline.from_pretrained(model, device=device, dtype=dtype, deferred=True)
        if self.pipeline.config is not None:
            checked_steps(text, self.pipeline.config, self.steps)
        self.seed = seed
        self.framing: Framing | None = None
        self.name = f"{Path(model).name}:{self.steps}" if self.steps else Path(model).name
        digest = hashlib.sha256()
        weights = {} if self.pipeline.model is None else self.pipeline.model.state_dict()
        for name, value in sorted(weights.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        self._weights = digest.hexdigest() if weights else ""

    def definition(self, task: Task) -> dict[str, Any]:
        """The hash of its weights, and how they are sampled."""
        sampling = None if self.pipeline.model is None else self.pipeline.model.config.sampling
        return {
            "kind": "model",
            "name": self.name,
            "weights_sha256": self._weights,
            "steps": self.steps if self.steps is not None or sampling is None else sampling.steps,
            "guidance_scale": None if sampling is None else sampling.guidance_scale,
            "seed": self.seed,
            "device": str(self.pipeline.device),
            "dtype": str(self.pipeline.dtype).removeprefix("torch."),
        }

    def make(self, task: Task) -> Made:
        """The frames that it generates, ``[F, H, W, 3]`` uint8, and the seconds of every stage."""
        pipeline, clock = self.pipeline, Clock(self.pipeline.device)
        completed = None
        if pipeline.config is not None:
            completed = pipeline.complete(task.scene, task.guide, steps=self.steps, seed=self.seed, clock=clock)
        with clock.stage("compose"):
            frames = pipeline.compose(task.guide, completed, task.positions)
        seconds = {stage: s for stage, s in clock.seconds.items() if stage not in ("load", "geometry")}
        return frames, {**seconds, "render": seconds["render"] + task.seconds["render"]}


class Frames:
    """An outside system by its frames, ``DIR/SPLIT/FRAME.png``, and its seconds, if ``DIR/seconds.json`` tells them.

    Args:
        text: ``NAME=DIR``, or ``NAME=DIR@FRAMING`` (see `Framing.parse`) for frames of another size or cut.

    Raises:
        UserError: no such folder or framing.
    """

    def __init__(self, text: str) -> None:
        self.name, equals, folder = text.partition("=")
        self.framing: Framing | None = None
        plain, at, framing = folder.rpartition("@")
        if at and not Path(folder).is_dir():
            folder, self.framing = plain, Framing.parse(framing)
        self.folder = Path(folder)
        if not equals or not self.name or not folder:
            raise UserError(f"`frames` {text}: write NAME=FOLDER, or NAME=FOLDER@WIDTHxHEIGHT[/WIDTHxHEIGHT]")
        if not self.folder.is_dir():
            raise UserError(f"`frames` {text}: there is no folder {folder}")

    def definition(self, task: Task) -> dict[str, Any]:
        """The hash of its frames, and how long they are told to have taken."""
        frames, seconds = self.make(task)
        digest = hashlib.sha256(frames.numpy().tobytes()).hexdigest()
        declared = {"declared": self.framing.text} if self.framing else {}
        told = {"seconds_from": "seconds.json", "seconds": seconds["told"]} if seconds else {}
        return {"kind": "frames", "name": self.name, **declared, **told, "frames_sha256": digest}

    def make(self, task: Task) -> Made:
        """Its frames as they are, ``[F, H, W, 3]`` uint8, and the seconds that are told of them."""
        split, named = task.split, self.folder / safe_name(task.split.name)
        folder = named if named.is_dir() else self.folder / safe_name(split.scene)
        frames = read_frames(folder, task.names, split.target, task.turned(self.framing).size)
        told = read_seconds(self.folder, split.name, split.scene)
        return frames, {} if told is None else {"told": told}


def telea(pictures: Tensor, known: Tensor) -> Tensor:
    """Pictures with their holes filled by OpenCV's inpainting of Telea (2004), radius 3.

    Args:
        pictures: ``[F, H, W, 3]`` float 0..1.
        known: ``[F, H, W]`` bool, False in the holes.

    Returns:
        ``[F, H, W, 3]`` float32 0..1.

    Raises:
        UserError: OpenCV is not installed.
    """
    require_inpainting()
    import cv2

    filled = []
    for picture, mask in zip(to_bytes(pictures).numpy(), known):
        filled.append(cv2.inpaint(np.ascontiguousarray(picture), (~mask).byte().numpy(), 3, cv2.INPAINT_TELEA))
    return torch.from_numpy(np.stack(filled)).float() / 255
