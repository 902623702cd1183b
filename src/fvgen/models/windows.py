"""Windows of a path: which frames are denoised together, and how batches of windows go through the model."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.diffusion import StepCallback, unit_noise
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel
from fvgen.models.sampling import sample_latents
from fvgen.models.speed import Speed, equal_batches, on_device, windows_at_once

Stage = Callable[[str], AbstractContextManager[None]]  # what times a stage, by its name


@dataclass(frozen=True)
class Windows:
    """Windows of the same number of frames, denoised together.

    Attributes:
        pictures: ``[N, T, H, W, 3]`` in 0..1, the guide.
        coverage: ``[N, T, H, W]`` bool, where it was measured.
        wanted: ``[N, T]`` bool, the frames that are decoded.
        generators: the noise of each window, on the CPU: it does not depend on which windows are denoised together.
    """

    pictures: Tensor
    coverage: Tensor
    wanted: Tensor
    generators: Sequence[torch.Generator]

    def __len__(self) -> int:
        return len(self.pictures)

    def filled(self, rows: int) -> "Windows":
        """As many rows as there shall be: the last window again, with noise of its own that uses up nobody's."""
        more = rows - len(self)
        if more <= 0:
            return self
        index = [*range(len(self)), *[len(self) - 1] * more]
        sources = [*self.generators, *(torch.Generator().manual_seed(0) for _ in range(more))]
        return Windows(self.pictures[index], self.coverage[index], self.wanted, sources)


@dataclass(frozen=True)
class WindowSampler:
    """How windows become pictures.

    Attributes:
        model: prepared as ``speed`` says.
        speed: batches, off-loading.
        device: where the work is done.
        steps, guidance_scale: as :func:`fvgen.models.sampling.sample_latents` takes them.
        callback: called after each step; where a batch was filled up its latents have more rows than windows.
    """

    model: VideoModel
    speed: Speed
    device: torch.device
    steps: int
    guidance_scale: float
    callback: StepCallback | None = None

    def groups(self, count: int, frames: int, size: tuple[int, int]) -> list[list[list[int]]]:
        """Batches of ``count`` windows of so many frames, and which batches go through the model together.

        Off-loaded, each part of the model comes once for all batches; otherwise a batch is done before the next.
        """
        most = windows_at_once(self.model, self.speed, frames, size, self.device)
        batches = [list(batch) for batch in equal_batches(count, most)]
        return [batches] if self.speed.offload else [[batch] for batch in batches]

    def run(self, batches: Sequence[Windows], rows: int, stage: Stage) -> list[Tensor]:
        """Denoise a group of batches.

        Args:
            batches: windows, all of the same number of frames.
            rows: windows of a full batch: a compiled network is made for them, and smaller batches are filled up.
            stage: is entered around ``encode``, ``denoise`` and ``decode``.

        Returns:
            Of each batch the wanted frames in order, ``[F, H, W, 3]`` in 0..1, on ``device``.
        """
        model, device, guided = self.model, self.device, self.guidance_scale != 1.0
        batches = [batch.filled(rows) if self.speed.compile else batch for batch in batches]
        clips = [(batch.pictures.movedim(-1, 2) * 2 - 1).to(device) for batch in batches]
        conditions: list[Condition] = []
        latents: list[Tensor] = []
        frames: list[Tensor] = []
        with stage("encode"), self._here(model.autoencoder, model.conditioner):
            for batch, clip in zip(batches, clips):
                sampled = model.config.sampling.sample_guide
                noise = unit_noise(model.latent_shape(clip), batch.generators, device) if sampled else None
                conditions.append(model.condition(clip, batch.coverage.to(device), clip[:, 0], noise, guided))
        with stage("denoise"), self._here(model.denoiser):
            for batch, clip, condition in zip(batches, clips, conditions):
                sources, scale = batch.generators, self.guidance_scale
                noise = unit_noise(model.latent_shape(clip), sources, device)
                latents.append(sample_latents(model, condition, noise, self.steps, scale, sources, self.callback))
        with stage("decode"), self._here(model.autoencoder):
            for batch, clip, condition, denoised in zip(batches, clips, conditions, latents):
                # There are no rows of `wanted` for windows that only fill a batch up.
                own, wanted = slice(0, len(batch.wanted)), batch.wanted.flatten().nonzero()[:, 0].to(device)
                made = model.decode(denoised[own], condition.concat[own], clip[own], wanted)
                frames.append(((made + 1) / 2).clamp(0, 1).movedim(1, -1))
        return frames

    def _here(self, *parts: torch.nn.Module) -> AbstractContextManager[None]:
        return on_device(self.device, *parts, offload=self.speed.offload)


def plan_windows(known: Sequence[bool], most: int) -> list[list[list[int]]]:
    """Cut a path into windows that share their end frames.

    Stretches between known frames (photographs) become windows. A stretch longer than ``most`` is done in levels:
    first ``most`` frames spread evenly over it, then, with those known, the gaps between them, all in one batch.

    Args:
        known: for each frame whether its picture is known.
        most: most frames of a window, at least 3.

    Returns:
        Levels of windows, each a list of frame indices; every unknown frame is in exactly one window as an unknown.
    """
    ends = sorted({0, len(known) - 1} | {i for i, is_known in enumerate(known) if is_known})
    stretches = list(zip(ends, ends[1:]))
    levels: list[list[list[int]]] = []
    while stretches:
        windows, gaps = [], []
        for first, last in stretches:
            if last - first + 1 <= most:
                windows.append(list(range(first, last + 1)))
                continue
            anchors = [first + round(k * (last - first) / (most - 1)) for k in range(most)]
            windows.append(anchors)
            gaps += [(a, b) for a, b in zip(anchors, anchors[1:]) if b - a > 1]
        levels.append([w for w in windows if not all(known[i] for i in w)])
        stretches = gaps
    return [level for level in levels if level]
