"""Counts operations and memory of a model's networks without running them: on tensors with a shape and no content."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from fvgen.evaluation.benchmark.systems import random_model
from fvgen.models.denoiser import Condition
from fvgen.models.model import ModelConfig

T = TypeVar("T")


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of floating-point operations, which knows the attention kernels of GPUs, with the CPU's added.

    It counts matrix products, convolutions and attention, a multiply-add as two operations;
    ``get_total_flops()`` tells how many there were inside the ``with``.
    """

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def gradient(out: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(out, query, key, value)

    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={forward: attention, backward: gradient})


class PeakMemory(TorchDispatchMode):
    """The most bytes of tensors made inside a ``with`` that exist at the same time.

    Tensors of PyTorch's fake mode count as if they had content; those on the device ``meta`` do not count.

    Attributes:
        peak: these bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._held = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in () if func.is_view else tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key not in self._storages:
            self._storages[key] = weakref.ref(storage, partial(self._release, key, size))
            self._held += size
            self.peak = max(self.peak, self._held)

    def _release(self, key: int, size: int, _: Any) -> None:
        self._held -= size
        del self._storages[key]


def count(run: Callable[[], T], *parts: nn.Module) -> tuple[dict[str, int], T]:
    """The work of a stage, see :func:`count_model`, and what it returned.

    Args:
        run: the stage.
        parts: of the model that it needs.
    """
    weights = [p for part in parts for p in part.parameters()]
    with torch.no_grad(), flop_counter() as counter, PeakMemory() as memory:
        made = run()
    work = {"flop": counter.get_total_flops(), "activations": memory.peak}
    work["weights"] = sum(p.numel() * p.element_size() for p in weights)
    return {**work, "parameters": sum(p.numel() for p in weights)}, made


def count_model(
    config: ModelConfig,
    frames: int,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    clips: int = 1,
    steps: int = 1,
    guided: bool = False,
) -> dict[str, dict[str, int]]:
    """The work of a batch of clips, as the pipeline does it, with all frames decoded.

    Args:
        config: shapes of the model; it needs no weights, nor memory for them.
        frames: of a clip.
        size: (width, height) in pixels, multiples of the model's grid.
        dtype: of weights and activations.
        clips: in the batch.
        steps: of denoising.
        guided: with classifier-free guidance, which has two passes of the UNet in a step.

    Returns:
        Of ``encode`` (with keys and values of the tokens, which serve all steps), ``denoise, per step``, ``decode`` (of
        the guide too where the model predicts around it) and ``all``: ``flop``, floating-point operations;
        ``activations``, most bytes of tensors that it makes and that exist at the same time, nothing fused;
        ``weights``, bytes of the parts of the model that it needs; ``parameters``, the numbers in these.
    """
    with FakeTensorMode():
        model = random_model(config, torch.device("cpu"), dtype)
        vae, conditioner, denoiser = model.autoencoder, model.conditioner, model.denoiser
        clip = torch.zeros(clips, frames, 3, size[1], size[0])
        coverage = torch.ones(clips, frames, size[1], size[0], dtype=torch.bool)
        image, noisy = clip[:, 0].clone(), torch.zeros(model.latent_shape(clip))
        t, every = torch.zeros(clips, dtype=torch.int64), torch.arange(clips * frames)

        def encoded() -> list[Condition]:
            condition = model.condition(clip, coverage, image, guided=guided)
            branches = [condition, denoiser.drop(condition)] if guided else [condition]
            return [denoiser.prepared(branch) for branch in branches]

        encode, branches = count(encoded, vae, conditioner)
        step, _ = count(lambda: [denoiser.velocity(noisy, t, branch) for branch in branches], denoiser)
        decode, _ = count(lambda: model.decode(noisy, branches[0].concat, clip, every), vae)
    whole = {name: encode[name] + step[name] for name in ("weights", "parameters")}
    whole["flop"] = encode["flop"] + steps * step["flop"] + decode["flop"]
    whole["activations"] = max(work["activations"] for work in (encode, step, decode))
    return {"encode": encode, "denoise, per step": step, "decode": decode, "all": whole}
