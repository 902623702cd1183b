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

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent along one axis."""
        return self.patch_size * 2 ** (len(self.channels) - 1)


class FrameAutoencoder(nn.Module):
    """Diffusers' ``AutoencoderKL``, untrained; clips go through it frame by frame, pixels folded into patches."""

    def __init__(self, config: AutoencoderConfig) -> None:
        from diffusers import AutoencoderKL

        super().__init__()
        self.spatial_factor, self.latent_channels = config.spatial_factor, config.latent_channels
        self.patch_size = config.patch_size
        blocks, pixels = len(config.channels), 3 * config.patch_size**2
        # Typed so because diffusers mixes its configuration in at run time, unseen by type checkers.
        self.vae: Any = AutoencoderKL(
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

    def fold(self, frames: Tensor) -> Tensor:
        """Frames ``[N, 3, H, W]`` to patches of ``p`` pixels, ``[N, 3 p p, H/p, W/p]``."""
        return F.pixel_unshuffle(frames, self.patch_size) if self.patch_size > 1 else frames

    def unfold(self, patches: Tensor) -> Tensor:
        """Patches ``[N, 3 p p, H/p, W/p]`` to frames ``[N, 3, H, W]``: the inverse of :meth:`fold`."""
        return F.pixel_shuffle(patches, self.patch_size) if self.patch_size > 1 else patches

    def encode(self, clip: Tensor, noise: Tensor | None = None) -> Tensor:
        """Encode a clip to scaled latents, frame by frame.

        Args:
            clip: ``[B, T, 3, H, W]`` in -1..1.
            noise: ``[B, C, T, H/f, W/f]`` unit noise with which the posterior is sampled; without it its mode is taken.

        Returns:
            ``[B, C, T, H/f, W/f]`` float32, multiplied by the scaling factor.
        """
        mean, std = self.posterior(clip)
        return mean if noise is None else mean + std * noise.to(mean)

    def posterior(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations ``[B, C, T, H/f, W/f]`` of a clip ``[B, T, 3, H, W]``'s scaled latents."""
        b, t = clip.shape[:2]
        latents = []
        for frames in clip.flatten(0, 1).split(frames_per_pass(*clip.shape[-2:])):
            posterior = self.vae.encode(self.fold(frames).to(self.vae.dtype)).latent_dist
            latents.append(torch.stack([posterior.mean.float(), posterior.std.float()]))
        mean, std = torch.cat(latents, dim=1).unflatten(1, (b, t)).transpose(2, 3) * self.vae.config.scaling_factor
        return mean, std

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents ``[B, C, T, h, w]`` to a clip ``[B, T, 3, H, W]``, float32, about -1..1."""
        b, t = latents.shape[0], latents.shape[2]
        height, width = (side * self.spatial_factor for side in latents.shape[-2:])
        frames = (latents / self.vae.config.scaling_factor).transpose(1, 2).flatten(0, 1)
        parts = frames.split(frames_per_pass(height, width))
        decoded = [self.unfold(self.vae.decode(part.to(self.vae.dtype)).sample.float()) for part in parts]
        return torch.cat(decoded).unflatten(0, (b, t))


def frames_per_pass(height: int, width: int) -> int:
    """Frames that go through an autoencoder together: 16 small ones, one large one, so that memory stays bounded."""
    return max(1, min(16, 16 * 256 * 192 // (height * width)))


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
    mean = patches.mean(0)
    centred = patches - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))  # ascending
    order = values.argsort(descending=True)[:latent]
    directions, deviations = vectors[:, order].T.contiguous(), values[order].clamp_min(1e-8).sqrt()
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


def _linear_path(part: Any, inward: Tensor, shift: Tensor, outward: Tensor, offset: Tensor) -> None:
    """Write ``outward @ (inward @ x + shift) + offset`` into the first and last convolution of ``part``."""
    conv_in, conv_out = part.conv_in, part.conv_out
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

    def fit(norm: nn.GroupNorm, args: tuple[Tensor, ...]) -> None:
        norm.weight.fill_(args[0].flatten(1).std(1).mean().item())
        norm.bias.fill_(args[0].mean().item())

    for norm in (vae.encoder.conv_norm_out, vae.decoder.conv_norm_out):
        handle = norm.register_forward_pre_hook(fit)
        vae.decode(vae.encode(inputs).latent_dist.mode())
        handle.remove()
