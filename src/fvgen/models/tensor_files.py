"""Writes safetensors one tensor after the other, so that files larger than the memory can be written."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Iterator[int]:
    """Write ``tensors`` as they are, format included; yields the bytes of each as it is written.

    The format: the length of the header in eight bytes, the header (JSON, padded with spaces to eight bytes), the
    tensors. Large number formats come first, so that each tensor is aligned for its own.

    Raises:
        ValueError: for a number format that safetensors does not have.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        value = tensors[name]
        if value.dtype not in _NAMES:
            raise ValueError(f"{name} is of type {value.dtype}, which safetensors cannot hold")
        start, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            raw: Any = flat.view(torch.uint8).numpy()
            yield file.write(raw) if flat.numel() else 0
