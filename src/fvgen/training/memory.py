"""What a distillation's networks need in memory, before any activation."""

from dataclasses import dataclass

from fvgen.models.model import ModelConfig, VideoModel

_WEIGHT = 4  # bytes: weights, gradients and moments are float32


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes per GPU.

    Attributes:
        teacher, student, fake_score: weights.
        moments: AdamW's two, of student and fake score.
        average: of the student.
        gradients: of the network whose turn it is.
        whole: conditioner and autoencoder, which every GPU holds whole.
    """

    teacher: float
    student: float
    fake_score: float
    moments: float
    average: float
    gradients: float
    whole: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.__dict__.values())


def memory_budget(config: ModelConfig, gpus: int) -> MemoryBudget:
    """The budget of the two stages with every network sharded over ``gpus``; the critic's head is not worth counting.

    Activations come on top, and one gathered stage of the network in hand.
    """
    model = VideoModel.build(config, device="meta")
    unet = sum(p.numel() for p in model.denoiser.parameters()) * _WEIGHT / gpus
    whole = sum(p.numel() for m in (model.conditioner, model.autoencoder) for p in m.parameters()) * _WEIGHT
    return MemoryBudget(unet, unet, unet, 4 * unet, unet, unet, whole)
