"""Memory that a model needs on its device: weights as they lie there, and activations as they are counted."""

from dataclasses import dataclass

import torch

from fvgen.evaluation.benchmark.clock import MIB
from fvgen.evaluation.benchmark.counting import Work, count_model
from fvgen.models.model import ModelConfig
from fvgen.models.speed import frame_bytes

# What lies on the device together when the rest is off-loaded, as `fvgen.models.windows` does it.
_TOGETHER = {
    "encode": ("encode", "image tokens", "decode"),
    "denoise": ("token keys", "UNet pass"),
    "decode": ("encode", "decode"),
}
_STAGES = {"encode": ("encode", "image tokens"), "denoise": ("token keys", "UNet pass"), "decode": ("decode",)}


@dataclass(frozen=True)
class Footprint:
    """Bytes at the worst moment of each stage.

    Attributes:
        dtype: of weights and activations.
        clips: denoised together.
        offload: whether only the part at work lies there.
        weights: per stage, ``encode``, ``denoise``, ``decode``.
        activations: per stage, at most.
        pictures: of the windows and their latents, all the time.
    """

    dtype: torch.dtype
    clips: int
    offload: bool
    weights: dict[str, int]
    activations: dict[str, int]
    pictures: int

    @property
    def peak(self) -> int:
        """Bytes at the worst moment of all stages."""
        return max(self.weights[name] + self.activations[name] for name in _STAGES) + self.pictures


def footprints(
    config: ModelConfig, size: tuple[int, int], dtypes: list[torch.dtype], clips: list[int]
) -> list[Footprint]:
    """Every combination of number format, batch, and off-loading or not.

    Args:
        config: of the model; nothing is allocated.
        size: (width, height) in pixels.
        dtypes, clips: to combine.
    """
    found = []
    for dtype in dtypes:
        for count in clips:
            works = count_model(config, None, size, dtype, count)
            found += [_footprint(config, size, dtype, count, works, offload) for offload in (False, True)]
    return found


def _footprint(
    config: ModelConfig, size: tuple[int, int], dtype: torch.dtype, clips: int, works: list[Work], offload: bool
) -> Footprint:
    of = {work.stage: work for work in works}
    everything = sum(work.weights for work in works)
    weights = {
        stage: sum(of[part].weights for part in parts) if offload else everything for stage, parts in _TOGETHER.items()
    }
    activations = {stage: max(of[part].peak for part in parts) for stage, parts in _STAGES.items()}
    pictures = int(clips * config.frames * frame_bytes(config, size))
    return Footprint(dtype, clips, offload, weights, activations, pictures)


def footprint_table(rows: list[Footprint]) -> str:
    """As a Markdown table, in MiB."""
    names = ["format", "windows at once", "off-loading", "weights", "encode", "denoise", "decode", "pictures", "peak"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [str(row.dtype).removeprefix("torch."), str(row.clips), "yes" if row.offload else "no"]
        sizes = [max(row.weights.values()), *row.activations.values(), row.pictures, row.peak]
        lines.append("| " + " | ".join([*cells, *(f"{size / MIB:,.0f}" for size in sizes)]) + " |")
    return "\n".join(lines)
