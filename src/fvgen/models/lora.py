"""Low-rank adapters (Hu et al. 2021, LoRA): several networks on one frozen base, each with small factors of its own.

Every adapted network is a tree of modules of its own that holds the base's parameters themselves and its own factors.
No switch says which factors are active, so networks can be used in any order and run again for a backward pass.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fvgen.errors import UserError
from fvgen.files import genuine
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
_DIGITS = 12


class LowRank(nn.Module):
    """A layer with weight ``W [out, in, ...]`` that acts as one with ``W + scale * up @ down``.

    It has no ``weight``: code that reads a layer's weight instead of calling the layer must fail, not miss the factors.

    Args:
        base: the layer; not copied.
        rank: of the factors, ``down [rank, in, ...]`` (Kaiming, as the layer itself would start) and ``up [out, rank]``
            (zeros, so that nothing changes at first). They are float32 whatever the base is, and compute in the format
            of the layer's input: bfloat16 with a bfloat16 base or under autocast. Their gradients are float32.
        scale: factor of ``up @ down``.
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
    """``W + scale * up @ down``, at least float32.

    Args:
        weight: ``W [out, in, ...]``.
        down: ``[rank, in, ...]``.
        up: ``[out, rank]``.
        scale: factor of ``up @ down``.

    Returns:
        ``[out, in, ...]``.
    """
    return weight + scale * (up.float() @ down.float().flatten(1)).reshape(weight.shape)


def adapted(network: M, config: LoraConfig, seed: int = 0) -> M:
    """A network of the same class, on the same parameters, whose chosen layers are :class:`LowRank`.

    The parameters are the given network's own, which are frozen by this. To draw an average of an adapted network, make
    another one of the base and average :func:`trainable` parts; a deep copy would copy the base.

    Args:
        network: the base, for example a :class:`fvgen.models.denoiser.VideoDenoiser`; not an adapted one.
        config: which layers, and how.
        seed: decides the factors.

    Raises:
        ValueError: the network has adapters already, or no layer of the chosen kinds.
    """
    if config.rank < 1:
        raise ValueError("adapters have a rank of at least 1")
    if low_rank_layers(network):
        raise ValueError("this network has adapters already: adapt its base")
    network.requires_grad_(False)
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    made, generator = copy.deepcopy(network, shared), torch.Generator().manual_seed(seed)
    for name, layer in list(made.named_modules()):
        owner = made.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, Layer) and layer is not made and _kind(owner, layer) in config.layers:
            made.set_submodule(name, LowRank(layer, config.rank, config.scale, generator))
    if not low_rank_layers(made):
        raise ValueError(f"{type(network).__name__} has no layers of the kinds {', '.join(config.layers)}")
    return made


def _kind(owner: nn.Module, layer: Layer) -> str | None:
    """One of ``Layers``, or ``None`` for a UNet's first and last convolution and its embeddings of numbers."""
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


def low_rank_layers(network: nn.Module) -> list[tuple[str, LowRank]]:
    """The adapted layers of a network by their names in it."""
    return [(name, part) for name, part in network.named_modules() if isinstance(part, LowRank)]


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
    for name, layer in low_rank_layers(plain):
        plain.set_submodule(name, layer.merged())
    return plain


def fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Twelve hex digits that tell whether two networks have the same weights.

    A format that holds them exactly does not change it: halves have the same digits when they are read as float32.

    Args:
        weights: names and tensors of any shape, in the order of the names.
    """
    digest = hashlib.sha256()
    for name, value in weights:
        _add(digest, name, value)
    return digest.hexdigest()[:_DIGITS]


def _add(digest: Any, name: str, value: Tensor) -> None:
    digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())


def save_adapter(
    folder: Path, network: nn.Module, config: LoraConfig, base: str, base_fingerprint: str, dtype: torch.dtype
) -> None:
    """Write the factors of an adapted network: ``adapter.safetensors``, and ``adapter.json``, which names their base.

    Args:
        folder: made if it is not there. With a ``model_index.json`` it is a model.
        network: made by :func:`adapted`, a denoiser where the folder is to be a model.
        config: the options that it was adapted with.
        base: model of the package, or folder of a model.
        base_fingerprint: what :func:`fingerprint` says of that model's denoiser, as it lies on disk.
        dtype: number format of the factors on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to(dtype).contiguous() for name, value in trainable(network).state_dict().items()}
    save_file(state, folder / "adapter.safetensors", metadata={"format": "pt"})
    told = {"base": base, "fingerprint": base_fingerprint, **asdict(config)}
    (folder / "adapter.json").write_text(json.dumps(told, indent=1) + "\n")


@dataclass(frozen=True)
class Adapter:
    """Factors on disk and what they belong to.

    Attributes:
        folder: they were read from.
        base: model of the package, or folder of a model.
        fingerprint: what :func:`fingerprint` says of the base's denoiser.
        config: the adapters' options.
        factors: by name, ``PATH.down`` and ``PATH.up``; empty until they are read.
    """

    folder: Path
    base: str
    fingerprint: str
    config: LoraConfig
    factors: Mapping[str, Tensor]

    @staticmethod
    def read(folder: Path, factors: bool = True) -> "Adapter | None":
        """What a folder holds; ``None`` if that is no adapter.

        Args:
            folder: a model's or an adapter's.
            factors: ``False``: their file is only looked for.

        Raises:
            UserError: the adapter is not whole.
        """
        if not (folder / "adapter.json").is_file():
            return None
        try:
            told = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
            config = LoraConfig(told["rank"], told["alpha"], tuple(told["layers"]))
            if not (folder / "adapter.safetensors").is_file():
                raise FileNotFoundError("adapter.safetensors is missing")
            found = load_file(genuine(folder / "adapter.safetensors")) if factors else {}
            return Adapter(folder, str(told["base"]), str(told["fingerprint"]), config, found)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(f"{folder} is not a complete adapter: {error}") from error

    def merged(
        self, weights: Iterable[tuple[str, Tensor]], prefix: str, base: str | Path
    ) -> Iterator[tuple[str, Tensor]]:
        """Add the factors to the weights of a base, one by one.

        Args:
            weights: names and tensors of any shape, all of them, in the order of the names.
            prefix: what their names begin with in the network that was adapted.
            base: its name, for errors.

        Returns:
            The names and the changed weights, each in the shape it had.

        Raises:
            UserError: after the last one, if it was another base than the one that was adapted.
        """
        digest, left = hashlib.sha256(), {name.removesuffix(".up") for name in self.factors if name.endswith(".up")}
        for name, value in weights:
            _add(digest, prefix + name, value)
            layer = (prefix + name).removesuffix(".weight")
            if name.endswith(".weight") and layer in left:
                down, up = (self.factors[f"{layer}.{part}"].to(value.device) for part in ("down", "up"))
                value = add_factors(value.float(), down, up, self.config.scale)
                left.remove(layer)
            yield name, value
        found = digest.hexdigest()[:_DIGITS]
        if found != self.fingerprint:
            raise UserError(
                f"{self.folder} adapts a model with the fingerprint {self.fingerprint}, and {base} has {found}: "
                f"name the folder of the right one as 'base' in {self.folder / 'adapter.json'}"
            )
        if left:
            raise UserError(f"{self.folder} has factors for {sorted(left)[0]}, which its base {base} does not have")
