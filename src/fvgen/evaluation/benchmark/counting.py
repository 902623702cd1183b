"""Counts operations and bytes of the networks without running them, on tensors that have a shape and no memory."""

import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fvgen.evaluation.benchmark.random_model import weightless_model
from fvgen.models.denoiser import Condition
from fvgen.models.model import ModelConfig

aten = torch.ops.aten
_KEYS = re.compile(r"spatial\.block\.attn2\.to_[kv]")  # what turns tokens to keys and values
_FREE = {
    aten.empty,
    aten.empty_like,
    aten.new_empty,
    aten.empty_strided,
    aten._unsafe_view,
    aten.lift_fresh,
    aten.detach,
}


@dataclass(frozen=True)
class Work:
    """What a stage has to do.

    Attributes:
        stage: its name.
        flop: floating-point operations of matrix products, convolutions and attention, a multiply-add as two;
            of formulas, all operations.
        bytes: of weights, inputs and outputs, each moved once: no implementation moves less.
        moved: bytes that all operations read and write when they run one after another, as they do without fusion;
            for formulas the same as ``bytes``.
        operations: how many operations are run (kernels launched), views not counted; 0 for formulas.
        parameters: of the part of the network it runs.
        weights: bytes of them.
        peak: most bytes of the tensors that it makes and that exist at the same time, without fusion; 0 for formulas.
    """

    stage: str
    flop: float
    bytes: float
    moved: float
    operations: int = 0
    parameters: int = 0
    weights: int = 0
    peak: int = 0

    def times(self, stage: str, factor: float) -> "Work":
        """The same ``factor`` times over, under another name."""
        count = round(self.operations * factor)
        flop, size, moved = (value * factor for value in (self.flop, self.bytes, self.moved))
        return replace(self, stage=stage, flop=flop, bytes=size, moved=moved, operations=count)


def _attention_flop(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """``q k^T`` and its product with ``v``, of ``[..., tokens, channels]``."""
    scores = query.numel() // query.shape[-1] * key.shape[-2]
    return 2 * scores * (query.shape[-1] + value.shape[-1])


# PyTorch counts the attention kernels of GPUs; it has no formula for the one that CPUs run.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,
}


class OperationCounter(TorchDispatchMode):
    """Counts what is dispatched to PyTorch's kernels inside a ``with``: operations, FLOP, bytes touched and held."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.flop = 0
        self.moved = 0
        self.by_operation: dict[str, int] = {}
        self.peak = 0
        self._held = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def _hold(self, made: Any) -> None:
        """Note tensors that are new, and, when their memory is given back, that they are gone."""
        for tensor in (leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor) and leaf.device.type != "meta"):
            storage = tensor.untyped_storage()
            if id(storage) in self._storages:
                continue
            key, size = id(storage), storage.nbytes()
            self._storages[key] = weakref.ref(storage, partial(self._release, key, size))
            self._held += size
            self.peak = max(self.peak, self._held)

    def _release(self, key: int, size: int, _: Any) -> None:
        self._held -= size
        del self._storages[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if not func.is_view:
            self._hold(out)
        if func.is_view or packet in _FREE or func.namespace == "prim":  # prim asks for facts, such as the device
            return out
        self.operations += 1
        self.by_operation[str(packet)] = self.by_operation.get(str(packet), 0) + 1
        self.moved += tensor_bytes((args, kwargs, out))
        if packet in _FORMULAS:
            self.flop += _FORMULAS[packet](*args, **kwargs, out_val=out)
        return out


def tensor_bytes(tree: Any) -> int:
    """Bytes of all tensors in nested containers; a view that repeats its elements counts what is stored."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


def count(stage: str, modules: list[nn.Module], run: Callable[[], Any], inputs: Any) -> tuple[Work, Any]:
    """The work of ``run()``, and what it returned.

    Args:
        stage: its name.
        modules: whose parameters it needs.
        run: computes.
        inputs: tensors that it reads.
    """
    weights = [p for module in modules for p in module.parameters()]
    with torch.no_grad(), OperationCounter() as counter:
        out = run()
    least = tensor_bytes((weights, inputs, out))
    size = sum(p.numel() for p in weights), sum(p.numel() * p.element_size() for p in weights)
    return Work(stage, counter.flop, least, counter.moved, counter.operations, *size, counter.peak), out


def count_model(
    config: ModelConfig,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    clips: int = 1,
) -> list[Work]:
    """The work of a network's stages for a batch of clips: encoding, image tokens, their keys, a UNet pass, decoding.

    Args:
        config: shapes of the network; no weights are needed, nor memory for them.
        frames: of the clip, by default the model's.
        size: (width, height) in pixels, multiples of the model's grid, by default its own.
        dtype: of weights and activations.
        clips: in the batch.

    Returns:
        ``encode``, ``image tokens``, ``token keys``, ``UNet pass``, ``decode``, as the pipeline runs them: image tokens
        are made of the photograph, keys and values of the tokens once for all passes, and a model that predicts around
        its guide decodes twice. With guidance there are tokens, keys and passes of a second branch.
    """
    frames = frames or config.frames
    width, height = size or (config.width, config.height)
    with FakeTensorMode():
        model = weightless_model(config, dtype)
        clip = torch.zeros(clips, frames, 3, height, width)
        coverage = torch.ones(clips, frames, height, width, dtype=torch.bool)
        vae, conditioner, denoiser = model.autoencoder.vae, model.conditioner, model.denoiser
        encoding = [m for m in (vae.encoder, vae.quant_conv) if m is not None]
        decoding = [m for m in (vae.decoder, vae.post_quant_conv) if m is not None]
        encode, concat = count("encode", encoding, lambda: model.concat_condition(clip, coverage), (clip, coverage))
        image = clip[:, 0].clone()
        tokens, context = count("image tokens", [conditioner], lambda: conditioner.context(image), image)
        condition = Condition(concat, context.float(), None)
        projections = [part for name, part in denoiser.unet.named_modules() if _KEYS.search(name)]
        keys, prepared = count("token keys", projections, lambda: denoiser.prepared(condition), condition.context)
        rest = [part for part in denoiser.unet.modules() if not any(part.children()) and part not in projections]
        noisy, t = torch.zeros(model.latent_shape(clip)), torch.zeros(clips, dtype=torch.int64)
        reads = (noisy, concat, prepared.keys)
        unet, _ = count("UNet pass", rest, lambda: denoiser.velocity(noisy, t, prepared), reads)
        every = torch.arange(clips * frames)
        decode, _ = count("decode", decoding, lambda: model.decode(noisy, concat, clip, every), (noisy, concat, clip))
    return [encode, tokens, keys, unet, decode]
