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
_MOVES = {Tensor.to, Tensor.cpu, Tensor.type_as}
_FACTORIES = {
    getattr(torch, name)
    for name in (
        *("tensor", "zeros", "ones", "full", "empty", "eye", "arange", "linspace", "rand", "randn", "randint"),
        *("randperm", "as_tensor", "scalar_tensor", "from_numpy", "frombuffer"),
    )
}


class OnGpu(Tensor):
    """Lies in the CPU's memory, and says that it does not."""


class PretendedGpu(TorchFunctionMode):
    """Inside this block ``device="cuda"`` works, on the CPU, under a GPU's rules.

    Tensors of both devices do not mix, numpy sees none of the GPU's, and only a few numbers at a time are fetched from
    there: pictures and points stay, unless ``fetch`` allows it.
    """

    def __init__(self, fetch: bool = False) -> None:
        super().__init__()
        self.fetch = fetch

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [isinstance(leaf, OnGpu) for leaf in given]
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return GPU if there[0] else torch.device("cpu")
        if any(there) and func in _FETCHES:
            assert func is not Tensor.numpy, "numpy sees no GPU"
            assert self.fetch or given[0].numel() <= _FEW, f"{tuple(given[0].shape)} are fetched from the GPU"
        if any(there) and func not in _MOVES:
            strangers = [tuple(g.shape) for g, here in zip(given, there) if not here and g.ndim]
            assert not strangers, f"{func.__name__} mixes the GPU's tensors with the CPU's {strangers}"
        goes_there = any(there)
        named = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, torch.device)]
        if func in _MOVES:
            goes_there = there[0] if func is Tensor.to else there[-1]
            named += [torch.device(leaf) for leaf in (*args[1:], kwargs.get("device")) if isinstance(leaf, str)]
            if len(given) > 1:  # tensor.to(other)
                goes_there = there[-1]
        elif isinstance(kwargs.get("device"), str):
            named.append(torch.device(kwargs["device"]))
        if named:
            goes_there = named[0].type == "cuda"
        if func in (Tensor.cpu, Tensor.tolist):
            goes_there = False
        args, kwargs = tree_map(_plain, (args, kwargs))
        made = func(*args, **kwargs)
        return tree_map(lambda leaf: _placed(leaf, goes_there), made)


def _plain(leaf: Any) -> Any:
    if isinstance(leaf, OnGpu):
        return leaf.as_subclass(Tensor)
    if isinstance(leaf, torch.device) and leaf.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(leaf, str) and leaf.startswith("cuda") else leaf


def _placed(leaf: Any, there: bool) -> Any:
    return leaf.as_subclass(OnGpu) if there and isinstance(leaf, Tensor) else leaf
