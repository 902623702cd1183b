"""A complete model: autoencoder, conditioner, denoiser and how they are sampled; one folder on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fvgen.diffusion import ScheduleConfig
from fvgen.errors import UserError
from fvgen.models.autoencoder import AutoencoderConfig, FrameAutoencoder
from fvgen.models.conditioner import ImageConditioner, VisionConfig
from fvgen.models.denoiser import Condition, VideoDenoiser
from fvgen.models.resampler import ResamplerConfig
from fvgen.models.unet import VideoUNet, VideoUNetConfig

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class SamplingConfig:
    """How a model wants to be sampled.

    Attributes:
        steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 runs one branch only.
        guidance_rescale: pulls guided predictions back to the spread of the conditional one.
        eta: noise of DDIM; unused by few-step models.
        few_step: ``True`` re-noises predicted ``x0`` (a distilled student), ``False`` runs DDIM.
    """

    steps: int = 50
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.7
    eta: float = 0.0
    few_step: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model but its weights.

    Attributes:
        width, height: native size in pixels, landscape; portrait swaps them.
        frames: most frames of one window.
        completed_guide: the guide is shown completed; ``False``: black where nothing was measured, as to the teacher.
        coverage_channel: the share of covered pixels is one more input channel.
        around_guide: the network predicts what the guide leaves (see :class:`VideoDenoiser`).
    """

    width: int = 256
    height: int = 160
    frames: int = 16
    completed_guide: bool = True
    coverage_channel: bool = True
    around_guide: bool = True
    unet: VideoUNetConfig = field(default_factory=VideoUNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


class VideoModel(nn.Module):
    """Autoencoder, conditioner and denoiser of one :class:`ModelConfig`."""

    def __init__(
        self,
        config: ModelConfig,
        autoencoder: FrameAutoencoder,
        conditioner: ImageConditioner,
        denoiser: VideoDenoiser,
    ) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = autoencoder
        self.conditioner = conditioner
        self.denoiser = denoiser

    @staticmethod
    def build(config: ModelConfig) -> VideoModel:
        """An untrained model."""
        conditioner = ImageConditioner.build(config.vision, config.resampler, config.unet.text_tokens)
        denoiser = VideoDenoiser(VideoUNet(config.unet), config.schedule, config.around_guide)
        return VideoModel(config, FrameAutoencoder.build(config.autoencoder), conditioner, denoiser)

    @property
    def grid(self) -> int:
        """Width and height in pixels must be multiples of this."""
        return self.autoencoder.spatial_factor * 2 ** (len(self.config.unet.channel_mult) - 1)

    def concat_condition(self, guide: Tensor, coverage: Tensor) -> Tensor:
        """Guide latents and coverage.

        Args:
            guide: ``[B, T, 3, H, W]`` in -1..1, completed where the model wants that.
            coverage: ``[B, T, H, W]`` bool.

        Returns:
            ``[B, C (+1), T, h, w]``.
        """
        latents = self.autoencoder.encode(guide)
        if not self.config.coverage_channel:
            return latents
        share = nn.functional.avg_pool2d(coverage.float(), self.autoencoder.spatial_factor)
        return torch.cat([latents, share[:, None].to(latents) * 2 - 1], dim=1)

    def condition(self, guide: Tensor, coverage: Tensor, image: Tensor) -> Condition:
        """The condition of clips ``[B, T, 3, H, W]`` whose cross-attention sees ``image [B, 3, H, W]``."""
        context, null = self.conditioner(image)
        return Condition(self.concat_condition(guide, coverage), context.float(), null.float())

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write ``model_index.json``, one folder of safetensors per component, all in ``dtype``."""
        folder.mkdir(parents=True, exist_ok=True)
        index = {"_class_name": "NovelViewPipeline", "_library": "fvgen", **asdict(self.config)}
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        scaled = {"scaling_factor": self.autoencoder.vae.config.scaling_factor}
        for name, module in self.components().items():
            (folder / name).mkdir(exist_ok=True)
            state = {k: v.detach().to(dtype).contiguous() for k, v in module.state_dict().items()}
            save_file(state, folder / name / "model.safetensors", metadata={"format": "pt"})
            if name == "vae":
                (folder / name / "config.json").write_text(json.dumps(scaled, indent=2) + "\n")

    def components(self) -> dict[str, nn.Module]:
        """The parts by the name of their folder."""
        return {"unet": self.denoiser.unet, "vae": self.autoencoder.vae, "conditioner": self.conditioner}

    @staticmethod
    def load(folder: str | Path) -> VideoModel:
        """Read a model folder, or a model of the package by its name (``mini``, ``mini-teacher``).

        Raises:
            UserError: if there is no such model or the folder is not one.
        """
        path = WEIGHTS / folder if (WEIGHTS / str(folder) / "model_index.json").is_file() else Path(folder)
        if not (path / "model_index.json").is_file():
            known = ", ".join(sorted(p.parent.name for p in WEIGHTS.glob("*/model_index.json")))
            raise UserError(
                f"model '{folder}' is neither one of the package ({known}) nor a folder with a model_index.json"
            )
        try:
            model = VideoModel.build(config_from_dict(json.loads((path / "model_index.json").read_text())))
            for name, module in model.components().items():
                state = {k: v.float() for k, v in load_file(path / name / "model.safetensors").items()}
                module.load_state_dict(state, strict=True)
            scaled = json.loads((path / "vae" / "config.json").read_text())
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path} is not a complete fvgen model: {first}") from error
        model.autoencoder.vae.register_to_config(**scaled)
        return model.eval()


_PARTS = {
    "unet": VideoUNetConfig,
    "autoencoder": AutoencoderConfig,
    "vision": VisionConfig,
    "resampler": ResamplerConfig,
    "schedule": ScheduleConfig,
    "sampling": SamplingConfig,
}


def config_from_dict(values: dict) -> ModelConfig:
    """The inverse of ``dataclasses.asdict``; keys that start with an underscore are left out, others must be known.

    Raises:
        TypeError: for an unknown key.
    """
    known = {k: v for k, v in values.items() if not k.startswith("_")}
    for name, part in _PARTS.items():
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in known[name].items()}
        known[name] = part(**lists)
    return ModelConfig(**known)


def resampler_to_match(unet: VideoUNetConfig, vision: VisionConfig, queries: int) -> ResamplerConfig:
    """A small resampler between a vision tower and a UNet."""
    return ResamplerConfig(
        dim=unet.context_dim,
        depth=1,
        heads=4,
        head_dim=16,
        num_queries=queries,
        embedding_dim=vision.hidden_size,
        output_dim=unet.context_dim,
    )


def _small(width: int, mult: tuple[int, ...], latent: int) -> VideoUNetConfig:
    return VideoUNetConfig(
        in_channels=2 * latent + 1,
        out_channels=latent,
        model_channels=width,
        channel_mult=mult,
        num_res_blocks=1,
        attention_resolutions=(4,),
        num_head_channels=16,
        context_dim=64,
        text_tokens=4,
        init_attention_heads=2,
        norm_groups=8,
        dropout=0.0,
    )


def preset(name: str) -> ModelConfig:
    """The configuration of ``mini`` or of ``mini-xs`` (for tests), as a teacher.

    Raises:
        UserError: for another name.
    """
    if name == "mini":
        unet, vision = _small(48, (1, 2, 2), 12), VisionConfig()
        return ModelConfig(unet=unet, vision=vision, resampler=resampler_to_match(unet, vision, 16))
    if name == "mini-xs":
        unet, vision = _small(16, (1, 2, 2), 12), VisionConfig(hidden_size=32, layers=1)
        return ModelConfig(
            width=128,
            height=80,
            frames=8,
            unet=unet,
            autoencoder=AutoencoderConfig(channels=(48,)),
            vision=vision,
            resampler=resampler_to_match(unet, vision, 4),
        )
    raise UserError(f"there is no preset '{name}'; choose mini or mini-xs")
