"""The per-frame image autoencoder: diffusers' ``AutoencoderKL`` on pixels, or on patches of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of an autoencoder; the defaults are ``mini``'s.

    Attributes:
        patch_size: pixels are folded into channels in squares of this side before the network; 1 is the teacher's.
        channels: width of each level of the network; each after the first halves the resolution.
        latent_channels: channels of the latents.
        layers: residual blocks per level.
        norm_groups: groups of the normalisations.
        mid_attention: self-attention at the lowest resolution (the teacher has it).
        quant_conv: 1x1 convolutions around the latents (the teacher has them).
        scaling_factor: latents are multiplied by it; a trained model's own lies with its weights.
    """

    patch_size: int = 4
    channels: tuple[int, ...] = (96,)
    latent_channels: int = 12
    layers: int = 1
    norm_groups: int = 1
    mid_attention: bool = False
    quant_conv: bool = False
    scaling_factor: float = 1.0


class FrameAutoencoder(nn.Module):
    """An ``AutoencoderKL`` and the patch size it works on; clips go through it frame by frame.

    Args:
        vae: diffusers' network, with ``3 * patch_size**2`` input and output channels.
        patch_size: side of the squares of pixels folded into channels.
    """

    def __init__(self, vae: Any, patch_size: int = 1) -> None:
        super().__init__()
        self.vae: Any = vae  # diffusers mixes its configuration in at run time, unseen by type checkers
        self.patch_size = patch_size

    @staticmethod
    def build(config: AutoencoderConfig) -> FrameAutoencoder:
        """An untrained autoencoder."""
        from diffusers import AutoencoderKL

        blocks, pixels = len(config.channels), 3 * config.patch_size**2
        vae = AutoencoderKL(
            in_channels=pixels,
            out_channels=pixels,
            block_out_channels=config.channels,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            layers_per_block=config.layers,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            mid_block_add_attention=config.mid_attention,
            use_quant_conv=config.quant_conv,
            use_post_quant_conv=config.quant_conv,
            scaling_factor=config.scaling_factor,
        )
        return FrameAutoencoder(vae, config.patch_size)

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent along one axis."""
        return self.patch_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.vae.config.latent_channels

    def fold(self, frames: Tensor) -> Tensor:
        """``[N, 3, H, W]`` -> ``[N, 3 p p, H/p, W/p]``."""
        return F.pixel_unshuffle(frames, self.patch_size) if self.patch_size > 1 else frames

    def unfold(self, patches: Tensor) -> Tensor:
        """The inverse of :meth:`fold`."""
        return F.pixel_shuffle(patches, self.patch_size) if self.patch_size > 1 else patches

    def encode(self, clip: Tensor, noise: Tensor | None = None) -> Tensor:
        """Frame by frame to scaled latents.

        Args:
            clip: ``[B, T, 3, H, W]`` in -1..1.
            noise: ``[B, C, T, H/f, W/f]`` unit noise with which the posterior is sampled; without it its mode is taken.

        Returns:
            ``[B, C, T, H/f, W/f]`` float32, multiplied by the scaling factor.
        """
        mean, std = self.posterior(clip)
        return mean if noise is None else mean + std * noise.to(mean)

    def posterior(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of a clip's latents, shaped and scaled as those of :meth:`encode`."""
        b, t = clip.shape[:2]
        latents = []
        for frames in clip.flatten(0, 1).split(frames_per_pass(*clip.shape[-2:])):
            posterior = self.vae.encode(self.fold(frames).to(self.vae.dtype)).latent_dist
            latents.append(torch.stack([posterior.mean.float(), posterior.std.float()]))
        mean, std = torch.cat(latents, dim=1).unflatten(1, (b, t)).transpose(2, 3) * self.vae.config.scaling_factor
        return mean, std

    def decode(self, latents: Tensor) -> Tensor:
        """``[B, C, T, h, w]`` scaled latents -> ``[B, T, 3, H, W]`` float32, about -1..1, frame by frame."""
        b, t = latents.shape[0], latents.shape[2]
        height, width = (side * self.spatial_factor for side in latents.shape[-2:])
        frames = (latents / self.vae.config.scaling_factor).transpose(1, 2).flatten(0, 1)
        parts = frames.split(frames_per_pass(height, width))
        decoded = [self.unfold(self.vae.decode(part.to(self.vae.dtype)).sample.float()) for part in parts]
        return torch.cat(decoded).unflatten(0, (b, t))


def frames_per_pass(height: int, width: int) -> int:
    """Frames that go through an autoencoder together: 16 small ones, one large one, so that memory stays bounded."""
    return max(1, min(16, 16 * 256 * 192 // (height * width)))


def principal_components(patches: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``[D]``, directions ``[count, D]`` and deviations ``[count]`` of ``patches [N, D]``."""
    mean = patches.mean(0)
    centred = patches - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    order = values.argsort(descending=True)[:count]
    return mean, vectors[:, order].T.contiguous(), values[order].clamp_min(1e-8).sqrt()


@torch.no_grad()
def start_from_principal_components(model: FrameAutoencoder, images: Tensor) -> None:
    """Initialise a one-level autoencoder as the principal-component transform of its patches.

    Training then starts from the best linear code instead of from noise. A linear map passes the network's last
    normalisation and SiLU unharmed because ``silu(x) - silu(-x) = x`` and because channels with a large constant
    keep the scale of the normalisation the same for every picture.

    Args:
        model: untrained, with one level and one normalisation group.
        images: ``[N, 3, H, W]`` in -1..1, a sample of the training pictures.

    Raises:
        ValueError: for another kind of autoencoder.
    """
    vae, latent = model.vae, model.latent_channels
    if len(vae.config.block_out_channels) != 1 or vae.config.norm_num_groups != 1:
        raise ValueError("this initialisation needs one level and one normalisation group")
    patches = model.fold(images).movedim(1, -1).flatten(0, 2)
    mean, directions, deviations = principal_components(patches, latent)
    # Latents keep half of the spectrum's decay: coarse content outlives fine content under noise.
    gains = deviations.rsqrt() / (deviations.sqrt().square().mean().sqrt())
    to_latent = directions * gains[:, None]
    from_latent = directions.T / gains[None]
    for module in vae.modules():
        if hasattr(module, "conv1") and hasattr(module, "conv2"):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    _linear_path(vae.encoder, to_latent, -to_latent @ mean, torch.eye(latent), torch.zeros(latent))
    vae.encoder.conv_out.bias[latent:] = -6.0
    _linear_path(vae.decoder, torch.eye(latent), torch.zeros(latent), from_latent, mean)
    _calibrate(vae, model.fold(images[:16]))


def _linear_path(part: nn.Module, inward: Tensor, shift: Tensor, outward: Tensor, offset: Tensor) -> None:
    """Write ``outward @ (inward @ x + shift) + offset`` into the first and last convolution of ``part``."""
    conv_in, conv_out = part.get_submodule("conv_in"), part.get_submodule("conv_out")
    assert isinstance(conv_in, nn.Conv2d)
    assert isinstance(conv_out, nn.Conv2d)
    assert conv_in.bias is not None
    assert conv_out.bias is not None
    k, width = inward.shape[0], conv_in.out_channels
    steady = (width - 2 * k) // 4 * 2  # channels that hold a constant
    conv_in.weight[: 2 * k + steady] = 0
    conv_in.weight[:k, :, 1, 1] = inward
    conv_in.weight[k : 2 * k, :, 1, 1] = -inward
    conv_in.bias[:k], conv_in.bias[k : 2 * k] = shift, -shift
    conv_in.bias[2 * k : 2 * k + steady : 2] = 6.0
    conv_in.bias[2 * k + 1 : 2 * k + steady : 2] = -6.0
    rows = outward.shape[0]
    conv_out.weight.mul_(0.05)
    conv_out.weight[:rows] = 0
    conv_out.weight[:rows, :k, 1, 1] = outward
    conv_out.weight[:rows, k : 2 * k, 1, 1] = -outward
    conv_out.bias.zero_()
    conv_out.bias[:rows] = offset


def _calibrate(vae: Any, inputs: Tensor) -> None:
    """Set the last normalisations so that they are the identity on a typical picture."""
    seen: dict[str, tuple[float, float]] = {}

    def watch(name: str, norm: nn.GroupNorm) -> None:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name] = (args[0].mean().item(), args[0].flatten(1).std(1).mean().item())

        handle = norm.register_forward_pre_hook(hook)
        vae.decode(vae.encode(inputs).latent_dist.mode())
        handle.remove()
        norm.weight.fill_(seen[name][1])
        norm.bias.fill_(seen[name][0])

    watch("encoder", vae.encoder.conv_norm_out)
    watch("decoder", vae.decoder.conv_norm_out)
