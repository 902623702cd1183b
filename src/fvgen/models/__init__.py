"""Networks, presets and complete models. Of the rooms of fvgen it imports only ``diffusion``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fvgen.models.denoiser import Condition, VideoDenoiser
    from fvgen.models.model import ModelConfig, SamplingConfig, VideoModel
    from fvgen.models.presets import preset

__all__ = ["Condition", "ModelConfig", "SamplingConfig", "VideoDenoiser", "VideoModel", "preset"]

_FILES = {"Condition": "denoiser", "VideoDenoiser": "denoiser", "preset": "presets"}


def __getattr__(name: str) -> Any:
    if name in __all__:  # lazy: options of the command line, which import no torch, are kept here too
        from importlib import import_module

        return getattr(import_module(f"fvgen.models.{_FILES.get(name, 'model')}"), name)
    raise AttributeError(f"module 'fvgen.models' has no attribute {name!r}")
