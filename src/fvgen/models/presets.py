"""The shapes of the models there are, by name."""

from typing import Any

from fvgen.diffusion import ScheduleConfig
from fvgen.errors import UserError
from fvgen.models.autoencoder import AutoencoderConfig
from fvgen.models.conditioner import VisionConfig
from fvgen.models.model import ModelConfig, SamplingConfig
from fvgen.models.resampler import ResamplerConfig
from fvgen.models.unet import VideoUNetConfig

VIEWCRAFTER_AUTOENCODER = AutoencoderConfig(
    patch_size=1,
    channels=(128, 256, 512, 512),
    latent_channels=4,
    layers=2,
    norm_groups=32,
    mid_attention=True,
    quant_conv=True,
    scaling_factor=0.18215,
)
VIEWCRAFTER_VISION = VisionConfig(
    image_size=224, patch_size=14, hidden_size=1280, layers=32, heads=16, resize="blurred"
)


def _mini(channels: int, queries: int, vision: VisionConfig | None, **rest: Any) -> ModelConfig:
    unet = VideoUNetConfig(
        in_channels=25,
        out_channels=12,
        model_channels=channels,
        channel_mult=(1, 2, 2),
        num_res_blocks=1,
        attention_resolutions=(4,),
        num_head_channels=16,
        context_dim=64,
        text_tokens=4,
        init_attention_heads=2,
        norm_groups=8,
        dropout=0.0,
    )
    resampler = ResamplerConfig(
        dim=64,
        depth=1,
        heads=4,
        head_dim=16,
        num_queries=queries,
        embedding_dim=vision.hidden_size if vision else 64,
        output_dim=64,
    )
    return ModelConfig(unet=unet, vision=vision, resampler=resampler, **rest)


def _viewcrafter(width: int, height: int, frames: int, base_scale: float, per_frame: bool = False) -> ModelConfig:
    """ViewCrafter's network, at a size in pixels, with a base scale of its schedule and in one of its token branches.

    The original decides by the number of frames whether each sees its own 16 image tokens, or all 256: 16 frames are
    ``per_frame``, 25 are not.
    """
    return ModelConfig(
        width=width,
        height=height,
        frames=frames,
        guide="points",
        coverage_channel=False,
        guide_variance=None,
        unet=VideoUNetConfig(per_frame_image_tokens=per_frame),
        autoencoder=VIEWCRAFTER_AUTOENCODER,
        vision=VIEWCRAFTER_VISION,
        resampler=ResamplerConfig(),
        schedule=ScheduleConfig(base_scale=base_scale),
        sampling=SamplingConfig(steps=50, guidance_scale=7.5, guidance_rescale=0.7, eta=1.0, sample_guide=True),
    )


PRESETS: dict[str, ModelConfig] = {
    # Its guide holds both photographs whole, so tokens of one add nothing; many steps at temperature 1 add noise; and
    # what photographs tell is truer than what a small network makes of it.
    "mini": _mini(48, 16, None, sampling=SamplingConfig(temperature=0.75, told_share=0.0)),
    "mini-xs": _mini(  # for tests
        16,
        4,
        VisionConfig(hidden_size=32, layers=1),
        width=128,
        height=80,
        frames=8,
        autoencoder=AutoencoderConfig(channels=(48,)),
    ),
    "viewcrafter-25": _viewcrafter(1024, 576, 25, 0.3),
    "viewcrafter-25-sparse": _viewcrafter(1024, 576, 25, 0.3),
    "viewcrafter-16": _viewcrafter(1024, 576, 16, 0.3, per_frame=True),
    "viewcrafter-25-512": _viewcrafter(512, 320, 25, 0.7),
    # FVGen's setting: weights of a 25-frame model, whose frames see all image tokens, on 16 frames. The base scale is
    # that of viewcrafter-25-sparse; conversion takes the checkpoint's own.
    "viewcrafter-512-16": _viewcrafter(512, 320, 16, 0.3),
}


def preset(name: str) -> ModelConfig:
    """The configuration of a model by its name in :data:`PRESETS`, as a teacher.

    Raises:
        UserError: for another name.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
