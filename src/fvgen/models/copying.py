"""Initialise a small UNet so that, before any training, it predicts the guide."""

import torch

from fvgen.models.unet import VideoUNet

_STEADY = 8.0


@torch.no_grad()
def start_by_copying_the_guide(unet: VideoUNet, latent: int) -> None:
    """Set ``v = -guide``, the velocity of ``x0 = guide`` where the signal is pure noise.

    The guide's latents enter as pairs ``(+g, -g)``, skip the whole network through the outermost connection, and
    leave through ``silu(g) - silu(-g) = g``; in each normalisation group a pair of large constants keeps the scale
    of the last normalisation the same for every clip. Training then starts from the guide instead of from noise.

    Args:
        unet: untrained; each of the first groups holds two latents, so ``3 latent`` channels are used.
        latent: latent channels ``C``; the network's input is ``[x_t (C), guide (C), ...]``.

    Raises:
        ValueError: if the network is too narrow, or its groups are not six channels wide.
    """
    config = unet.config
    width, group = config.model_channels, config.model_channels // config.norm_groups
    skip = unet.get_submodule(f"decoder.{len(unet.decoder) - 1}.res.skip")
    if group != 6 or latent % 2 or 3 * latent > width or not isinstance(skip, torch.nn.Conv2d):
        raise ValueError("copying the guide needs normalisation groups of six channels and a width of 3 per latent")
    used = 3 * latent
    conv_in, conv_out, norm = unet.conv_in, unet.conv_out, unet.norm_out
    shift = conv_in.bias
    assert shift is not None
    assert skip.bias is not None
    conv_in.weight[:used] = 0
    shift[:used] = 0
    skip.weight[:used] = 0
    skip.bias[:used] = 0
    for k in range(latent):
        plus = (k // 2) * group + (k % 2) * 2
        conv_in.weight[plus, latent + k, 1, 1] = 1
        conv_in.weight[plus + 1, latent + k, 1, 1] = -1
        conv_out.weight[k, plus, 1, 1] = -1
        conv_out.weight[k, plus + 1, 1, 1] = 1
    for start in range(0, used, group):
        shift[start + 4], shift[start + 5] = _STEADY, -_STEADY
        # Two unit latents as pairs and the constants: the deviation that the normalisation will divide by.
        norm.weight[start : start + group] = ((2 * _STEADY**2 + 4) / group) ** 0.5
    skipped = torch.arange(used)
    skip.weight[skipped, skip.in_channels - width + skipped] = 1
