"""A network of a preset's shape without trained weights, each tensor made once, in its place and number format."""

from collections.abc import Callable

import torch
from torch import Tensor

from fvgen.models.model import ModelConfig, VideoModel


def model_with(config: ModelConfig, make: Callable[[str, Tensor], Tensor]) -> VideoModel:
    """A model whose weights are made by ``make(name, shape on meta)``; never more than one copy of them exists."""
    model = VideoModel.build(config, device="meta")
    for part in model.components().values():
        part.load_state_dict({name: make(name, value) for name, value in part.state_dict().items()}, assign=True)
    return model.eval().requires_grad_(False)


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> VideoModel:
    """Random weights that keep activations of ordinary size, made on ``device``."""
    generator = torch.Generator(device).manual_seed(seed)

    def make(name: str, value: Tensor) -> Tensor:
        if value.ndim < 2:
            return torch.full(
                value.shape, float("norm" in name and name.endswith("weight")), dtype=dtype, device=device
            )
        made = torch.empty(value.shape, dtype=dtype, device=device)
        return made.normal_(std=value[0].numel() ** -0.5, generator=generator)

    return model_with(config, make).to(device)


def weightless_model(config: ModelConfig, dtype: torch.dtype) -> VideoModel:
    """Weights with a shape and no content; for use in PyTorch's fake tensor mode, where they take no memory."""
    return model_with(config, lambda _, value: torch.empty(value.shape, dtype=dtype))
