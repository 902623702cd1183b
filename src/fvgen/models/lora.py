"""Low-rank adapters (Hu et al. 2021, LoRA): several networks on one frozen base, each with small factors of its own.

Every adapted network is a tree of modules of its own that holds the base's parameters themselves and its own factors.
No switch says which factors are active, so networks can be used in any order and run again for a backward pass.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.models.attention import Attention
from fvgen.models.lora_config import LoraConfig
from fvgen.models.unet import (
    ResBlock,
    ScalarEmbedding,
    SpatialTransformer,
    TemporalTransformer,
    TimeConv,
    VideoUNet,
)

M = TypeVar("M", bound=nn.Module)
Layer = nn.Linear | nn.Conv2d | nn.Conv3d


class LowRank(nn.Module):
    """A layer with weight ``W [out, in, ...]`` that acts as one with ``W + scale * up @ down``.

    It has no ``weight``: code that reads a layer's weight instead of calling the layer must fail, not miss the factors.

    Args:
        base: the layer; not copied.
        rank: of the factors, ``down [rank, in, ...]`` (Kaiming, as the layer itself would start) and ``up [out, rank]``
            (zeros, so that nothing changes at first). They are float32 whatever the base is, and compute in the format
            of the layer's input: bfloat16 with a bfloat16 base or under autocast. Their gradients are float32.
        scale: of the product.
        generator: draws ``down``, on the CPU.
    """

    def __init__(self, base: Layer, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        if isinstance(base, nn.Conv2d | nn.Conv3d) and base.groups > 1:
            raise ValueError("convolutions in groups have no adapters")
        self.base, self.scale = base, scale
        weight = base.weight
        drawn = torch.empty(rank, *weight.shape[1:])
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        self.down = nn.Parameter(drawn.to(weight.device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):  # once for base and factors: the copy is kept for the backward pass
            x = x.to(torch.get_autocast_dtype(kind))
        down, up = self.down.to(x.dtype), (self.scale * self.up).to(x.dtype)
        if isinstance(self.base, nn.Linear):
            return self.base(x) + F.linear(F.linear(x, down), up)
        hidden = self.base._conv_forward(x, down, None)
        found = self.base(x)
        return found + F.conv2d(hidden.flatten(3), up[:, :, None, None]).reshape(found.shape)

    def merged(self) -> Layer:
        """A layer of the base's class with the factors in its weight; the base stays."""
        layer = copy.deepcopy(self.base)
        with torch.no_grad():
            layer.weight.copy_(add_factors(layer.weight, self.down, self.up, self.scale))
        return layer


def add_factors(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """``W + scale * up @ down``, at least float32."""
    return weight + scale * (up.float() @ down.float().flatten(1)).reshape(weight.shape)


def adapted(network: M, config: LoraConfig, seed: int = 0) -> M:
    """A network of the same class, on the same parameters, whose chosen layers are :class:`LowRank`.

    The parameters are the given network's own, which are frozen by this. To draw an average of an adapted network, make
    another one of the base and average :func:`trainable` parts; a deep copy would copy the base.

    Args:
        network: the base, for example a :class:`fvgen.models.denoiser.VideoDenoiser`; not an adapted one.
        config: which layers, and how.
        seed: of the factors.

    Raises:
        ValueError: the network has adapters already, or no layer of the chosen kinds.
    """
    if config.rank < 1:
        raise ValueError("adapters have a rank of at least 1")
    if any(True for _ in low_rank_layers(network)):
        raise ValueError("this network has adapters already: adapt its base")
    network.requires_grad_(False)
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    made, generator = copy.deepcopy(network, shared), torch.Generator().manual_seed(seed)

    def wrapped(owner: nn.Module, layer: nn.Module) -> nn.Module:
        if isinstance(layer, Layer) and _kind(owner, layer) in config.layers:
            return LowRank(layer, config.rank, config.scale, generator)
        return layer

    _replace(made, wrapped)
    if not any(True for _ in low_rank_layers(made)):
        raise ValueError(f"{type(network).__name__} has no layers of the kinds {', '.join(config.layers)}")
    return made


def _kind(owner: nn.Module, layer: Layer) -> str | None:
    """Of :data:`fvgen.models.lora_config.Layers`; ``None``: a UNet's first and last convolution, its time embedding."""
    if isinstance(layer, TimeConv):
        return "temporal"
    if isinstance(owner, ScalarEmbedding | VideoUNet):
        return None
    if not isinstance(layer, nn.Linear):
        return "spatial"
    if isinstance(owner, Attention):
        return "attention"
    if isinstance(owner, SpatialTransformer | TemporalTransformer):
        return "projections"
    return "embeddings" if isinstance(owner, ResBlock) else "feedforward"


def _replace(owner: nn.Module, change: Callable[[nn.Module, nn.Module], nn.Module]) -> None:
    for name, child in owner.named_children():
        new = change(owner, child)
        if new is child:
            _replace(child, change)
        else:
            setattr(owner, name, new)


def low_rank_layers(network: nn.Module) -> Iterator[tuple[str, LowRank]]:
    """The adapted layers of a network by their names in it."""
    return ((name, part) for name, part in network.named_modules() if isinstance(part, LowRank))


def trainable(network: nn.Module) -> nn.Module:
    """A module that holds the factors of an adapted network and nothing else: what is trained, averaged and stored.

    They are the network's own parameters, under the names they have in it: ``PATH.down``, ``PATH.up``.
    """
    root = nn.Module()
    for name, layer in low_rank_layers(network):
        place = root
        for step in name.split("."):
            if step not in place._modules:
                place.add_module(step, nn.Module())
            place = place.get_submodule(step)
        place.register_parameter("down", layer.down)
        place.register_parameter("up", layer.up)
    return root


def merge(network: M) -> M:
    """A plain network with the factors in its weights, its tensors all new."""
    plain = copy.deepcopy(network)
    _replace(plain, lambda _, layer: layer.merged() if isinstance(layer, LowRank) else layer)
    return plain


def lora_budget(network: nn.Module, config: LoraConfig, base_bytes: int = 2) -> dict[str, int]:
    """Bytes of a distillation's networks where teacher, student and fake score share a base, activations apart.

    Args:
        network: the base; may lie on ``meta``.
        config: of both adapters.
        base_bytes: of each of the base's weights; the factors are float32.
    """
    base = sum(p.numel() for p in network.parameters())
    factors = 4 * sum(p.numel() for p in trainable(adapted(network, config)).parameters())
    return {
        "base": base_bytes * base,
        "student and fake score": 2 * factors,
        "average": factors,
        "moments": 2 * 2 * factors,
        "gradients": factors,
    }
