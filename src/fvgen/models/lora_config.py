"""Options of low-rank adapters. Light: imports no torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from fvgen.errors import UserError

Layers = Literal["attention", "feedforward", "projections", "embeddings", "spatial", "temporal"]
ALL_LAYERS: tuple[Layers, ...] = get_args(Layers)


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021, LoRA): each chosen weight ``W`` becomes ``W + alpha / rank * up @ down``."""

    rank: int = 64
    """Rows of down, columns of up; 0: no adapters, all weights are trained."""

    alpha: float | None = None
    """Strength of the adapters, over the rank; by default the rank itself, a factor of 1."""

    layers: tuple[Layers, ...] = ALL_LAYERS
    """Which layers have one. attention: queries, keys, values and outputs; feedforward: of the transformers, and in
    networks of other kinds every linear layer; projections: into and out of the transformers; embeddings: how residual
    blocks see the time; spatial and temporal: convolutions. A few-step student differs from its teacher everywhere."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.layers) - set(ALL_LAYERS))
        if self.rank < 0 or (self.alpha is not None and self.alpha <= 0):
            raise UserError("the rank of adapters is at least 0, their alpha above 0")
        if unknown or not self.layers:
            raise UserError(f"there are no layers '{' '.join(unknown)}': choose of {', '.join(ALL_LAYERS)}")

    @property
    def scale(self) -> float:
        """``alpha / rank``."""
        return 1.0 if self.alpha is None else self.alpha / self.rank
