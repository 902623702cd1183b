"""Optional packages and weights of estimators: found on this machine, or one clear line on how to get them."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fvgen.errors import UserError
from fvgen.files import genuine
from fvgen.hub import hub_folder
from fvgen.packages import ESTIMATORS, estimator_command

FILES = ("config.json", "model.safetensors")

_loaded: dict[tuple[str, Path, int, str], nn.Module] = {}


class Unusable(UserError):
    """An estimator that cannot run here, whatever the photos: its package or weights are missing or damaged."""


def first_line(error: BaseException) -> str:
    """An error's message for the end of one line: its first line, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def optional(module: str, estimator: str) -> Any:
    """A module of an estimator's optional package, or of what that needs.

    The package is installed without its own dependencies, most of which are for demos and training; the extra of the
    estimator's name holds the others.

    Raises:
        Unusable: not installed, or broken, naming the command that mends it.
    """
    package, command = ESTIMATORS[estimator][1], estimator_command(estimator)
    try:
        with quiet():
            return importlib.import_module(module)
    except ImportError as error:
        raise Unusable(f"{estimator} needs the package {package} ({error}): {command}") from None
    except (RuntimeError, OSError) as error:
        raise Unusable(
            f"{estimator}: {package} does not load ({first_line(error)}); install the torchvision made for your "
            f"PyTorch, or: {command}"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what optional packages print and warn about: stdout belongs to fvgen."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def find_weights(
    wanted: str | None, names: dict[str, str], estimator: str, restricted: dict[str, str] | None = None
) -> Path:
    """The file or folder of an estimator's weights. Nothing is downloaded unless a hub model is named.

    Args:
        wanted: a file, a folder with ``config.json`` and ``model.safetensors``, a short name of ``names``, or a model
            of the Hugging Face hub as ``hub:OWNER/MODEL``; ``None`` means the first short name.
        names: short names and their models on the hub, which must have been downloaded before.
        estimator: for the messages.
        restricted: short names and models on the hub of others, which are not for commercial use: nobody gets these
            without having named the model.

    Raises:
        Unusable: nothing there, or a short name of ``restricted``.
    """
    wanted = next(iter(names)) if wanted is None else wanted
    if wanted in names:
        return _from_hub(names[wanted], False, estimator)
    if wanted.startswith("hub:"):
        return _from_hub(wanted.removeprefix("hub:"), True, estimator)
    if Path(wanted).expanduser().exists():
        return Path(wanted).expanduser()
    if restricted and wanted in restricted:
        raise Unusable(
            f"weights of {estimator}: {wanted} ({restricted[wanted]}) is CC BY-NC 4.0, not for commercial use; if that "
            f"suits you, name hub:{restricted[wanted]}, else {' or '.join(names)} (Apache-2.0)"
        )
    raise Unusable(
        f"weights of {estimator}: {wanted} is no file, folder or known name; name a path, a model of the hub as "
        f"hub:OWNER/MODEL, or one of {', '.join(names)}"
    )


@lru_cache  # once in a process, not for every clip
def _from_hub(model: str, download: bool, estimator: str) -> Path:
    try:
        folder = hub_folder(model, FILES, download)
    except UserError as error:
        if download:
            raise Unusable(f"weights of {estimator}: {error}") from None
        folder = Path()
    if not all((folder / name).is_file() for name in FILES):
        raise Unusable(
            f"weights of {estimator} are not on this machine: `geometry_weights` hub:{model} downloads them, "
            "`geometry_weights` PATH takes them from a file or folder"
        )
    return folder


def read_folder(path: Path, estimator: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of ``config.json`` and the tensors (of any shape) of ``model.safetensors`` beside it.

    Args:
        path: their folder, or the tensors' file.
        estimator: for the messages.

    Raises:
        Unusable: one of them is missing or damaged.
    """
    import json

    from safetensors.torch import load_file

    folder = path.parent if path.is_file() else path
    file = path if path.is_file() else folder / FILES[1]
    for needed in (folder / FILES[0], file):
        if not needed.is_file():
            raise Unusable(f"weights of {estimator}: {needed} is missing")
        genuine(needed)
    try:
        config = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
        state = load_file(file)
    except Exception as error:  # safetensors has an error class of its own, json another
        raise Unusable(f"weights of {estimator}: {folder} is damaged ({first_line(error)})") from None
    if not isinstance(config, dict):
        raise Unusable(f"weights of {estimator}: {folder / FILES[0]} is no configuration")
    return config, state


def fill(network: nn.Module, state: dict[str, Tensor], path: Path, estimator: str) -> None:
    """Load every parameter of the network.

    Args:
        network: to be filled.
        state: tensors of any shape by name; those that the network does not have (other heads) are left out.
        path: where they come from, for the messages.
        estimator: for the messages.

    Raises:
        Unusable: a tensor is missing or has another shape.
    """
    try:
        missing = list(network.load_state_dict(state, strict=False).missing_keys)
    except RuntimeError as error:
        raise Unusable(f"weights of {estimator}: {path} is of another model ({str(error).splitlines()[-1]})") from None
    if missing:
        raise Unusable(f"weights of {estimator}: {path} lacks {len(missing)} tensors, such as {missing[0]}")


def loaded(load: Callable[[Path], nn.Module], path: Path, device: str) -> nn.Module:
    """The network of a file or folder on a device, kept in memory until another is asked for or its file has changed.

    Args:
        load: what reads it, onto the CPU.
        path: of the weights.
        device: where to put it.

    Raises:
        Unusable: whatever ``load`` complains about.
    """
    file = path / FILES[1] if path.is_dir() else path
    changed = file.stat().st_mtime_ns if file.is_file() else 0  # 0: ``load`` says what is missing
    key = (load.__module__, path.resolve(), changed, device)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load(path).eval().to(device)
    return _loaded[key]
