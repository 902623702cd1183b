"""The shapes of the models there are, by name."""

from collections.abc import Callable

from fvgen.diffusion import ScheduleConfig
from fvgen.errors import UserError
from fvgen.models.autoencoder import AutoencoderConfig
from fvgen.models.conditioner import VisionConfig
from fvgen.models.model import ModelConfig, SamplingConfig
from fvgen.models.resampler import ResamplerConfig
from fvgen.models.unet import VideoUNetConfig


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


def _mini() -> ModelConfig:
    unet, vision = _small(48, (1, 2, 2), 12), VisionConfig()
    return ModelConfig(unet=unet, vision=vision, resampler=resampler_to_match(unet, vision, 16))


def _mini_xs() -> ModelConfig:
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


def viewcrafter(
    width: int, height: int, frames: int, base_scale: float, per_frame_image_tokens: bool = False
) -> ModelConfig:
    """ViewCrafter's network at one of its settings.

    Args:
        width, height: size in pixels, multiples of 64.
        frames: most frames of a clip.
        base_scale: to which the latents shrink with the noise (see ``diffusion.schedule``).
        per_frame_image_tokens: each frame sees its own 16 image tokens, instead of all 256. The original decides this
            by the number of frames: 16 frames are per frame, 25 are not.
    """
    return ModelConfig(
        width=width,
        height=height,
        frames=frames,
        guide="points",
        coverage_channel=False,
        guide_variance=None,
        unet=VideoUNetConfig(per_frame_image_tokens=per_frame_image_tokens),
        autoencoder=AutoencoderConfig(
            patch_size=1,
            channels=(128, 256, 512, 512),
            latent_channels=4,
            layers=2,
            norm_groups=32,
            mid_attention=True,
            quant_conv=True,
            scaling_factor=0.18215,
        ),
        vision=VisionConfig(image_size=224, patch_size=14, hidden_size=1280, layers=32, heads=16, resize="blurred"),
        resampler=ResamplerConfig(),
        schedule=ScheduleConfig(base_scale=base_scale),
        sampling=SamplingConfig(steps=50, guidance_scale=7.5, guidance_rescale=0.7, eta=1.0, sample_guide=True),
    )


PRESETS: dict[str, Callable[[], ModelConfig]] = {
    "mini": _mini,
    "mini-xs": _mini_xs,  # for tests
    "viewcrafter-25": lambda: viewcrafter(1024, 576, 25, 0.3),
    "viewcrafter-25-sparse": lambda: viewcrafter(1024, 576, 25, 0.3),
    "viewcrafter-16": lambda: viewcrafter(1024, 576, 16, 0.3, per_frame_image_tokens=True),
    "viewcrafter-25-512": lambda: viewcrafter(512, 320, 25, 0.7),
    # FVGen's setting: weights of a 25-frame model, whose frames see all image tokens, on 16 frames. The base scale is
    # that of viewcrafter-25-sparse; conversion takes the checkpoint's own.
    "viewcrafter-512-16": lambda: viewcrafter(512, 320, 16, 0.3),
}


def preset(name: str) -> ModelConfig:
    """The configuration of a model by its name in :data:`PRESETS`, as a teacher.

    Raises:
        UserError: for another name.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
