"""A second device on a machine that has only a CPU: its tensors say ``cuda`` and refuse what a GPU's would refuse."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
_FEW = 64  # numbers that may be fetched at once: sizes and decisions, not pictures
_FETCHES = {Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.__int__, Tensor.__float__, Tensor.__bool__}
_MOVES = {Tensor.to, Tensor.cpu}


class OnGpu(Tensor):
    """Lies in the CPU's memory, and says that it does not."""


class PretendedGpu(TorchFunctionMode):
    """Inside this block ``device="cuda"`` works, on the CPU, under a GPU's rules.

    Tensors of both devices do not mix, numpy sees none of the GPU's, and only a few numbers at a time are fetched from
    there: pictures and points stay.

    Args:
        fetch: more may be fetched; ``fetched`` has the shapes of it.
    """

    def __init__(self, fetch: bool = False) -> None:
        super().__init__()
        self.fetch, self.fetched = fetch, list[tuple[int, ...]]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.device:  # a name, not yet a place
            return func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(isinstance(tensor, OnGpu) for tensor in given)
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return GPU if there else torch.device("cpu")
        named = [torch.device(leaf).type for leaf in (*args, *kwargs.values()) if _is_device(leaf)]
        if there and (func in _FETCHES or (func is Tensor.to and named == ["cpu"])):
            assert func is not Tensor.numpy, "numpy sees no GPU"
            if given[0].numel() > _FEW:
                assert self.fetch, f"{tuple(given[0].shape)} numbers are fetched from the GPU"
                self.fetched.append(tuple(given[0].shape))
        if there and func not in _MOVES:
            strangers = [tuple(tensor.shape) for tensor in given if not isinstance(tensor, OnGpu) and tensor.ndim]
            assert not strangers, f"{func.__name__} mixes the GPU's tensors with the CPU's {strangers}"
        if func is Tensor.to:
            there = isinstance(given[-1], OnGpu)  # as another tensor is, or else where it was
        if named:
            there = named[0] == "cuda"
        if func is Tensor.cpu:
            there = False
        args, kwargs = tree_map(_on_cpu, (args, kwargs))
        made = func(*args, **kwargs)
        return tree_map(lambda leaf: leaf.as_subclass(OnGpu) if there and isinstance(leaf, Tensor) else leaf, made)


def _is_device(leaf: Any) -> bool:
    return isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf in ("cpu", "cuda"))


def _on_cpu(leaf: Any) -> Any:
    if isinstance(leaf, OnGpu):
        return leaf.as_subclass(Tensor)
    return "cpu" if _is_device(leaf) else leaf
