"""Models by name: of the package, a folder, or of the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from fvgen.errors import UserError

WEIGHTS = Path(__file__).parent / "models" / "weights"


def is_hub_name(text: str) -> bool:
    """Whether a text is written as ``OWNER/MODEL`` and no folder has that name."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None and not Path(text).exists()


def hub_folder(model: str, patterns: Sequence[str], download: bool = True) -> Path:
    """The folder of a model ``OWNER/MODEL`` in the hub's cache on this machine, downloaded if it is not there yet.

    Args:
        model: its name.
        patterns: of the files that are wanted, such as ``*.safetensors``.
        download: whether the hub may be asked.

    Raises:
        UserError: there is no such model, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(patterns), local_files_only=not download))
    except Exception as error:  # the hub's client raises those of several network libraries
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{model} cannot be had from the hub ({reason})") from None


def packaged_models() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(p.parent.name for p in WEIGHTS.glob("*/model_index.json"))


def find_model(folder: str | Path) -> Path:
    """The folder of a model: given itself, or by the name of one of the package or of the Hugging Face hub.

    Args:
        folder: a folder, a name such as ``mini``, or ``OWNER/MODEL``, which is downloaded if no folder has that name.

    Raises:
        UserError: if there is no such model.
    """
    path = WEIGHTS / folder if (WEIGHTS / str(folder) / "model_index.json").is_file() else Path(folder)
    if is_hub_name(str(folder)):
        try:
            path = hub_folder(str(folder), ("*.json", "*.safetensors"))
        except UserError as error:
            raise UserError(f"model '{folder}': there is no such folder, and {error}") from None
    if not (path / "model_index.json").is_file():
        known = ", ".join(packaged_models())
        hint = " (fvgen convert makes one of a ViewCrafter checkpoint)" if "viewcrafter" in str(folder) else ""
        raise UserError(
            f"model '{folder}' is neither one of the package ({known}), nor a folder with a model_index.json, nor "
            f"OWNER/MODEL of the Hugging Face hub{hint}"
        )
    return path


def check_models(texts: Sequence[str]) -> None:
    """Say at once which of some models, written as :func:`model_and_steps` reads them, there is not; ``none`` is one.

    Raises:
        UserError: naming the first.
    """
    for name in (model_and_steps(text)[0] for text in texts):
        if name != "none":
            find_model(name)


def model_and_steps(text: str) -> tuple[str, int | None]:
    """A model written ``MODEL`` or ``MODEL:STEPS``, and its steps where they are said.

    Raises:
        UserError: no model, or more than that.
    """
    model, colon, steps = text.rpartition(":")
    if not colon or not steps.isdigit():
        model, steps = text, ""
    if not model or model.endswith(":"):
        raise UserError(f"`models` {text}: write MODEL or MODEL:STEPS, such as mini-teacher:50")
    return model, int(steps) if steps else None
