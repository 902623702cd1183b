"""Denoises windows of a scene in batches: encoding, sampling and decoding in an order that suits time and memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.diffusion import unit_noise
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel
from fvgen.models.sampling import StepCallback, sample_latents
from fvgen.models.speed import Speed, equal_batches, on_device, windows_at_once
from fvgen.progress import track

Stage = Callable[[str], AbstractContextManager[None]]  # what times a stage, by its name


@dataclass(frozen=True)
class Windows:
    """Windows of the same number of frames.

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


@dataclass(frozen=True)
class WindowSampler:
    """How windows become pictures.

    Attributes:
        model: prepared as ``speed`` says.
        speed: batches, off-loading.
        device: where the work is done.
        steps, guidance_scale: see `sample_latents`.
        callback: of each step; where a batch was filled up its latents have more rows than windows.
    """

    model: VideoModel
    speed: Speed
    device: torch.device
    steps: int
    guidance_scale: float
    callback: StepCallback | None = None

    def run(self, windows: Windows, stage: Stage) -> Iterator[tuple[list[int], Tensor]]:
        """Denoise the windows.

        Args:
            windows: all of one length.
            stage: is entered around ``encode``, ``denoise`` and ``decode``.

        Yields:
            The numbers of some windows, and their wanted frames in order, ``[F, H, W, 3]`` in 0..1, on ``device``.
        """
        height, width = windows.pictures.shape[2:4]
        most = windows_at_once(self.model, self.speed, windows.pictures.shape[1], (width, height), self.device)
        batches = [list(batch) for batch in equal_batches(len(windows), most)]
        # Off-loaded, each part of the model comes once for all batches; otherwise a batch is done before the next.
        groups = [batches] if self.speed.offload else [[batch] for batch in batches]
        for group in track(groups, "windows"):
            yield from self._group(windows, [self._filled(b, len(batches[0])) for b in group], group, stage)

    def _filled(self, batch: list[int], size: int) -> list[int]:
        """A compiled network is made for one size of batch: a smaller one gets its last window several times."""
        return batch + batch[-1:] * (size - len(batch)) if self.speed.compile else batch

    def _group(
        self, windows: Windows, filled: list[list[int]], kept: list[list[int]], stage: Stage
    ) -> Iterator[tuple[list[int], Tensor]]:
        model = self.model
        clips = [(windows.pictures[b].movedim(-1, 2) * 2 - 1).to(self.device) for b in filled]
        sources = [self._sources(windows, batch, len(own)) for batch, own in zip(filled, kept)]
        with stage("encode"), self._here(model.autoencoder, model.conditioner):
            covered = (windows.coverage[b].to(self.device) for b in filled)
            conditions = [self._encode(*inputs) for inputs in zip(clips, covered, sources)]
        with stage("denoise"), self._here(model.denoiser):
            latents = [self._denoise(*inputs) for inputs in zip(clips, conditions, sources)]
        with stage("decode"), self._here(model.autoencoder):
            wanted = [windows.wanted[batch] for batch in kept]
            made = [self._decode(*inputs) for inputs in zip(latents, conditions, clips, wanted)]
        yield from zip(kept, made)

    def _here(self, *parts: torch.nn.Module) -> AbstractContextManager[None]:
        return on_device(self.device, *parts, offload=self.speed.offload)

    @staticmethod
    def _sources(windows: Windows, batch: list[int], own: int) -> list[torch.Generator]:
        """The noise of each row; rows that only fill up have a source of their own, or they would use up a window's."""
        fill = [torch.Generator().manual_seed(0) for _ in batch[own:]]
        return [*(windows.generators[i] for i in batch[:own]), *fill]

    def _encode(self, clip: Tensor, coverage: Tensor, sources: list[torch.Generator]) -> Condition:
        model, guided = self.model, self.guidance_scale != 1.0
        noise = None
        if model.config.sampling.sample_guide:
            noise = unit_noise(model.latent_shape(clip), sources, self.device)
        return model.condition(clip, coverage, clip[:, 0], noise, guided)

    def _denoise(self, clip: Tensor, condition: Condition, sources: list[torch.Generator]) -> Tensor:
        noise = unit_noise(self.model.latent_shape(clip), sources, self.device)
        return sample_latents(self.model, condition, noise, self.steps, self.guidance_scale, sources, self.callback)

    def _decode(self, latents: Tensor, condition: Condition, clip: Tensor, wanted: Tensor) -> Tensor:
        """The wanted frames ``[F, H, W, 3]``; ``wanted`` has no rows for windows that only fill up."""
        own, rows = slice(0, len(wanted)), wanted.flatten().nonzero()[:, 0].to(self.device)
        made = self.model.decode(latents[own], condition.concat[own], clip[own], rows)
        return ((made + 1) / 2).clamp(0, 1).movedim(1, -1)
