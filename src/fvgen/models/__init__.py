"""Networks, presets and complete models. Imports only ``diffusion`` of fvgen."""

from fvgen.models.denoiser import Condition, VideoDenoiser
from fvgen.models.model import ModelConfig, SamplingConfig, VideoModel
from fvgen.models.presets import preset

__all__ = ["Condition", "ModelConfig", "SamplingConfig", "VideoDenoiser", "VideoModel", "preset"]
