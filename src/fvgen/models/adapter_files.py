"""Adapters on disk: ``adapter.safetensors``, and ``adapter.json`` that says what they adapt, which stays elsewhere."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fvgen.errors import UserError
from fvgen.models.lora import adapted, add_factors, trainable
from fvgen.models.lora_config import LoraConfig

M = TypeVar("M", bound=nn.Module)
_DIGITS = 12


def fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Twelve hex digits of weights by name, given in the order of the names.

    A format that holds them exactly does not change it: halves have the same digits when they are read as float32.
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
    """Write the factors of an adapted network.

    Args:
        folder: made if it is not there. With a ``model_index.json`` it is a model.
        network: made by :func:`fvgen.models.lora.adapted`, a denoiser where the folder is to be a model.
        config: it was made with.
        base: model of the package, or folder of a model.
        base_fingerprint: of that model's denoiser, as it lies on disk.
        dtype: of the factors on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to(dtype).contiguous() for name, value in trainable(network).state_dict().items()}
    save_file(state, folder / "adapter.safetensors", metadata={"format": "pt"})
    told = {"base": base, "fingerprint": base_fingerprint, **asdict(config)}
    (folder / "adapter.json").write_text(json.dumps(told, indent=1) + "\n")


@dataclass(frozen=True)
class Adapter:
    """Factors and what they belong to.

    Attributes:
        folder: they were read from.
        base: model of the package, or folder of a model.
        fingerprint: of the base.
        config: of the adapters.
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
            folder: of a model or an adapter.
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
            found = load_file(folder / "adapter.safetensors") if factors else {}
            return Adapter(folder, str(told["base"]), str(told["fingerprint"]), config, found)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(f"{folder} is not a complete adapter: {error}") from error

    @property
    def places(self) -> tuple[str, ...]:
        """Where its base may be: as it was named, as seen from the adapter's folder, beside that folder."""
        beside = self.folder.resolve().parent / Path(self.base).name
        return self.base, str(self.folder / self.base), str(beside)

    def require(self, found: str, base: str | Path) -> None:
        """Refuse another base.

        Args:
            found: its fingerprint.
            base: its name.

        Raises:
            UserError: it is not the one that was adapted.
        """
        if found != self.fingerprint:
            raise UserError(
                f"{self.folder} adapts a model with the fingerprint {self.fingerprint}, and {base} has {found}: "
                f"name the folder of the right one as 'base' in {self.folder / 'adapter.json'}"
            )

    def merged(
        self, weights: Iterable[tuple[str, Tensor]], prefix: str, base: str | Path
    ) -> Iterator[tuple[str, Tensor]]:
        """A base's weights with the factors added, one by one.

        Args:
            weights: all of them by name, in the order of the names.
            prefix: of their names in the network that was adapted.
            base: its name, for errors.

        Raises:
            UserError: after the last one, if it was another base.
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
        self.require(digest.hexdigest()[:_DIGITS], base)
        if left:
            raise UserError(f"{self.folder} has factors for {sorted(left)[0]}, which its base {base} does not have")


def load_adapter(folder: Path, network: M) -> tuple[M, LoraConfig]:
    """An adapted network with the factors of a folder, on a base that is at hand.

    Args:
        folder: of :func:`save_adapter`.
        network: the base as it lies on disk, or in float32; it is frozen, and shared.

    Raises:
        UserError: the folder is no adapter, or one of another base.
    """
    adapter = Adapter.read(folder)
    if adapter is None:
        raise UserError(f"{folder} is no adapter: it has no adapter.json")
    adapter.require(fingerprint(sorted(network.state_dict().items())), "the network given")
    made = adapted(network, adapter.config)
    trainable(made).load_state_dict(adapter.factors, strict=True)
    return made, adapter.config
