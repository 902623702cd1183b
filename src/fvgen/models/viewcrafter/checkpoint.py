"""Reads and writes the pickled checkpoints of ViewCrafter, executing nothing that they hold."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.utils import CallbackIOWrapper

from fvgen.errors import UserError
from fvgen.files import genuine, write_whole, writing
from fvgen.progress import bar

_DEEPSPEED = "_forward_module."
_OLD, _NEW = "framestride_embed", "fps_embedding"


@dataclass(frozen=True)
class Form:
    """How a checkpoint wraps its tensors.

    Attributes:
        container: the entry they lie in, ``state_dict`` or ``module`` (DeepSpeed), or ``""`` where they lie open.
        prefix: what stands before every key.
        old_names: whether the frame stride's embedding has its old name.
    """

    container: str
    prefix: str
    old_names: bool


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes:
        tensors: by key, without wrapping, with today's names; they live in the file, not in memory.
        form: how to wrap them again.
        dropped: other entries of the file, such as the optimizer's.
    """

    tensors: dict[str, Tensor]
    form: Form
    dropped: tuple[str, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Open a ``.ckpt`` or ``.pth``: plain, with a ``state_dict``, or DeepSpeed's with a ``module``.

    Raises:
        UserError: there is no such file, it is cut off, it is something else, or it holds code.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not the tensors of a model")
    container = next((name for name in ("state_dict", "module") if isinstance(content.get(name), dict)), "")
    state = content[container] if container else content
    keys = list(state)
    if not keys or not all(isinstance(k, str) and isinstance(state[k], Tensor) for k in keys):
        raise UserError(f"{path} holds no named tensors: it is not a ViewCrafter checkpoint")
    prefix = _DEEPSPEED if all(key.startswith(_DEEPSPEED) for key in keys) else ""
    form = Form(container, prefix, any(_OLD in key for key in keys))
    tensors = {key.removeprefix(prefix).replace(_OLD, _NEW): state[key] for key in keys}
    if len(tensors) != len(keys):
        raise UserError(f"{path} has the frame stride's embedding twice, under its old and its new name")
    return Checkpoint(tensors, form, tuple(str(k) for k in content if container and k != container))


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint file")
    zipped = zipfile.is_zipfile(genuine(path))
    with path.open("rb") as file:
        if file.read(2) == b"PK" and not zipped:
            raise UserError(f"{path} is cut off: its end is missing; copy or download it again")
    try:
        # Files of the old format cannot stay on the disk; they are read whole.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        text = " ".join(str(error).split())
        code = re.search(r"(?:GLOBAL|Unsupported global:|Unsupported class|Trying to call reduce for) (\S+)", text)
        if code:
            what = code[1].rstrip(".,:")
            raise UserError(f"{path} holds more than tensors ({what}), which could run code: not loaded") from error
        raise UserError(f"{path} is damaged or not a PyTorch checkpoint ({text[:120]})") from error


def write_checkpoint(tensors: dict[str, Tensor], form: Form, path: Path) -> None:
    """Write a checkpoint in the form it once had: the whole file, or none.

    Args:
        tensors: by key, without wrapping, of any shape.
        form: how to wrap them.
        path: the file to write.

    Raises:
        UserError: ``path`` cannot be written.
    """
    state: dict[str, Any] = {
        form.prefix + (key.replace(_NEW, _OLD) if form.old_names else key): value for key, value in tensors.items()
    }
    content = {form.container: state} if form.container else state
    size = sum(value.nbytes for value in tensors.values())
    with bar(size, "write") as progress, writing(path.parent, f"`output` {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: torch.save(content, CallbackIOWrapper(progress.update, file, "write")))
