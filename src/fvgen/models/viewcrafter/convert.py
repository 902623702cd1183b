"""A ViewCrafter checkpoint to a model folder, and back to the same keys and bytes."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from fvgen.errors import UserError
from fvgen.files import genuine
from fvgen.models.model import ModelConfig, VideoModel, config_from_dict, write_configs
from fvgen.models.presets import preset
from fvgen.models.viewcrafter.checkpoint import Checkpoint, Form, read_checkpoint, write_checkpoint
from fvgen.models.viewcrafter.config import model_config, read_config
from fvgen.models.viewcrafter.keys import BUFFERS, SCHEDULE, UNUSED, place, schedule_buffers
from fvgen.models.viewcrafter.record import RECORD, check_converted
from fvgen.models.viewcrafter.text import PROMPT, TextConfig, build_text_tower, embed_prompts
from fvgen.progress import bar, track

_TEXT = "text_encoder"
_CACHED = ("prompt", "empty_prompt")  # of the conditioner; computed, not in the checkpoint

_FORMATS = {
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

Parts = dict[str, dict[str, Tensor]]  # tensors by component and name


@dataclass(frozen=True)
class Choice:
    """What a checkpoint does not say of itself.

    Attributes:
        preset: name of a ``viewcrafter-*`` preset, or ``auto``: ``viewcrafter-25-512`` where the checkpoint's base
            scale is that model's, else ``viewcrafter-25``; they differ in nothing else that a checkpoint holds.
        config: ViewCrafter's YAML, whose entries come before the preset's.
        frames: most frames of a clip; by default the preset's.
        per_frame_image_tokens: the token branch; by default the preset's.
        text: safetensors with ``prompt`` and ``empty_prompt``, ``[77, D]``: embeddings in place of the fixed prompt's.
    """

    preset: str = "auto"
    config: Path | None = None
    frames: int | None = None
    per_frame_image_tokens: bool | None = None
    text: Path | None = None


def from_viewcrafter(source: Path, folder: Path, choice: Choice | None = None) -> list[str]:
    """Convert a checkpoint.

    Args:
        source: ``.ckpt`` or ``.pth``, see :func:`read_checkpoint`. It is read piece by piece: memory stays below its
            size and a little more.
        folder: an empty folder, which receives ``model_index.json``, one folder of safetensors per component (the text
            tower too, though only its cached embeddings are used), ``unused.safetensors`` and ``conversion.json``.
        choice: what the checkpoint does not say; by default everything is told from the checkpoint.

    Returns:
        What went where, line by line.

    Raises:
        UserError: the checkpoint is unreadable, or not of this model.
    """
    choice = choice or Choice()
    checkpoint = read_checkpoint(source)
    config, text, notes = _configured(checkpoint, choice)
    parts = _sorted_out(checkpoint, config)
    _check_complete(parts, config, text, source)
    notes += _cache_text(parts, config, text, choice.text)
    notes += [f"left out, as no model needs it: {', '.join(checkpoint.dropped)}"] if checkpoint.dropped else []
    _write(folder, parts, config, text)
    record = {"source": source.name, "form": asdict(checkpoint.form), "keys": list(checkpoint.tensors)}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    lines = [f"{len(checkpoint.tensors)} tensors of the checkpoint:"]
    for component, state in sorted(parts.items()):
        own = [value for name, value in state.items() if name not in _CACHED]
        where = "unused.safetensors, only to convert back" if component == UNUSED else component
        lines.append(f"  {len(own):>5} tensors {sum(value.numel() for value in own):>14,} values  {where}")
    computed = sum(key in BUFFERS and key not in parts.get(UNUSED, {}) for key in checkpoint.tensors)
    lines.append(f"  {computed:>5} tensors not stored: the noise schedule gives them back bit for bit")
    return lines + notes


def _configured(checkpoint: Checkpoint, choice: Choice) -> tuple[ModelConfig, TextConfig, list[str]]:
    scale = checkpoint.tensors.get("scale_arr")
    stored = None if scale is None or scale.numel() == 0 else round(float(scale.flatten()[-1]), 6)
    name = choice.preset
    if name == "auto":
        name = "viewcrafter-25-512" if stored == preset("viewcrafter-25-512").schedule.base_scale else "viewcrafter-25"
    if not name.startswith("viewcrafter-"):
        raise UserError(f"`preset` {name}: choose one of ViewCrafter's, see fvgen convert --help")
    config, text, notes = preset(name), TextConfig(), [f"preset: {name}"]
    if choice.config is not None:
        config, text = model_config(read_config(choice.config), config)
        notes = [f"configuration: {choice.config.name}, and the rest as {name}"]
    given = config.schedule.base_scale
    if stored is not None and stored != given:
        notes.append(f"base scale: {stored:g}, which the checkpoint was trained with, not {given:g}")
        config = replace(config, schedule=replace(config.schedule, base_scale=stored))
    if choice.per_frame_image_tokens is not None:
        config = replace(config, unet=replace(config.unet, per_frame_image_tokens=choice.per_frame_image_tokens))
    if choice.frames is not None:
        config = replace(config, frames=choice.frames)
    per_frame, most = config.unet.per_frame_image_tokens, config.resampler.num_queries // config.unet.tokens_per_frame
    if config.frames < 3 or (per_frame and config.frames > most):
        bound = f" and at most {most}, as each sees its own image tokens" if per_frame else ""
        raise UserError(f"{config.frames} frames: a clip has at least 3{bound}")
    tokens = "each frame its own" if per_frame else "all to every frame"
    notes.append(f"clips of {config.frames} frames, {config.width}x{config.height}; image tokens: {tokens}")
    return config, text, notes


def _sorted_out(checkpoint: Checkpoint, config: ModelConfig) -> Parts:
    """Every tensor of the checkpoint at its place; buffers that the schedule gives back bit for bit are left out."""
    parts: Parts = defaultdict(dict)
    buffers = schedule_buffers(config.schedule)
    for key, value in checkpoint.tensors.items():
        try:
            where = place(key, len(config.autoencoder.channels))
            tensors = where.split(value)
        except KeyError:
            raise UserError(f"the checkpoint is of another model: ViewCrafter has no tensor '{key}'") from None
        except ValueError as error:
            raise UserError(f"the checkpoint is of another model: {key}: {error}") from error
        if where.component != SCHEDULE:
            parts[where.component].update(zip(where.names, tensors))
        elif value.dtype != buffers[key].dtype or not torch.equal(value, buffers[key]):
            parts[UNUSED][key] = value
    return parts


def _check_complete(parts: Parts, config: ModelConfig, text: TextConfig, source: Path) -> None:
    """Every tensor that the model has is there, in its shape, and no other."""
    modules: dict[str, Any] = {**VideoModel.build(config, "meta").components(), _TEXT: build_text_tower(text)}
    for component, module in modules.items():
        needed = {name: list(value.shape) for name, value in module.state_dict().items()}
        for name in _CACHED if component == "conditioner" else ():
            del needed[name]
        found = {name: list(value.shape) for name, value in parts[component].items()}
        missing, extra = [n for n in needed if n not in found], [n for n in found if n not in needed]
        if missing or extra:
            what = f"lacks {len(missing)} tensors of" if missing else f"has {len(extra)} tensors too many for"
            raise UserError(
                f"{source} {what} the {component} that it should hold, the first of them {(missing or extra)[0]}: it "
                "is incomplete, or of a model of another size (whose configuration `config` names)"
            )
        wrong = next((n for n in needed if needed[n] != found[n]), None)
        if wrong is not None:
            raise UserError(
                f"{source} is of a model of another size: {component} {wrong} has the shape {found[wrong]} where "
                f"{needed[wrong]} is needed; name its configuration with `config`"
            )


def _cache_text(parts: Parts, config: ModelConfig, text: TextConfig, file: Path | None) -> list[str]:
    """Put the embeddings of both prompts into the conditioner; returns what is to be said about them."""
    shape, notes = (config.unet.text_tokens, config.unet.context_dim), []
    if file is not None:
        try:
            given = load_file(genuine(file))
            embedded, notes = [given[name] for name in _CACHED], [f"prompt: embeddings of {file.name}"]
        except KeyError as error:
            raise UserError(f"`text` {file}: there is no {error.args[0]} in it") from error
        except (OSError, SafetensorError) as error:
            raise UserError(f"`text` {file}: cannot be read as safetensors: {error}") from error
    elif text.vocab_size > max(PROMPT):
        embedded = list(embed_prompts(text, parts[_TEXT]))
    else:
        embedded = [torch.zeros(shape), torch.zeros(shape)]
        notes = ["warning: the text tower has not CLIP's vocabulary; the prompt is left at zero"]
    for name, value in zip(_CACHED, embedded):
        if tuple(value.shape) != shape:
            raise UserError(f"the embedding of {name} has the shape {list(value.shape)}, the model needs {list(shape)}")
        parts["conditioner"][name] = value.float().contiguous()
    return notes


def _write(folder: Path, parts: Parts, config: ModelConfig, text: TextConfig) -> None:
    write_configs(folder, config, config.autoencoder.scaling_factor)
    with bar(sum(value.nbytes for state in parts.values() for value in state.values()), "write") as progress:
        for component, state in parts.items():
            file = _file(folder, component)
            file.parent.mkdir(exist_ok=True)
            try:
                _write_tensors(file, state, progress)
            except ValueError as error:
                raise UserError(f"the checkpoint cannot be converted: {component}: {error}") from error
    described = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **text.to_transformers()}
    (folder / _TEXT / "config.json").write_text(json.dumps(described, indent=2) + "\n")


def _write_tensors(path: Path, tensors: dict[str, Tensor], progress: Any) -> None:
    """Write safetensors one tensor after the other: the library's own writer needs memory for a copy of them all.

    The format: the length of the header in eight bytes, the header (JSON, padded with spaces to eight bytes), the
    tensors. Large number formats come first, so that each tensor is aligned for its own.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        value = tensors[name]
        if value.dtype not in _FORMATS:
            raise ValueError(f"{name} is of type {value.dtype}, which safetensors cannot hold")
        start, end = end, end + value.nbytes
        header[name] = {"dtype": _FORMATS[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            raw: Any = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            progress.update(file.write(raw))


def _file(folder: Path, component: str) -> Path:
    return folder / "unused.safetensors" if component == UNUSED else folder / component / "model.safetensors"


def to_viewcrafter(folder: Path, target: Path) -> list[str]:
    """Convert a folder that :func:`from_viewcrafter` wrote back to a checkpoint: the same keys, the same bytes.

    Args:
        folder: the converted model.
        target: the file to write.

    Returns:
        What was done, line by line.

    Raises:
        UserError: the folder was not converted from ViewCrafter, or is incomplete, or ``target`` cannot be written.
    """
    check_converted(folder)
    try:
        record = json.loads((folder / RECORD).read_text())
        config = config_from_dict(json.loads((folder / "model_index.json").read_text()))
        form, keys, buffers = Form(**record["form"]), list(record["keys"]), schedule_buffers(config.schedule)
        with ExitStack() as stack:
            files, tensors = {}, {}  # tensors live in their files where they can
            for component in ("unet", "vae", "conditioner", _TEXT, UNUSED):
                if component != UNUSED or _file(folder, component).is_file():
                    files[component] = stack.enter_context(safe_open(genuine(_file(folder, component)), "pt"))
            unused = set(files[UNUSED].keys()) if UNUSED in files else set()
            for key in track(keys, "read"):
                where = place(key, len(config.autoencoder.channels))
                if key in unused:
                    tensors[key] = files[UNUSED].get_tensor(key)
                elif where.component == SCHEDULE:
                    tensors[key] = buffers[key]
                else:
                    tensors[key] = where.join([files[where.component].get_tensor(name) for name in where.names])
            write_checkpoint(tensors, form, target)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder} is not a complete converted model: {' '.join(str(error).split())}") from error
    return [f"{len(keys)} tensors in {target}"]
