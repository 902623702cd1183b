"""The depth network: one photo and what matching tells of it in, depth and its uncertainty out."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from fvgen.errors import UserError
from fvgen.files import genuine, write_whole
from fvgen.models.efficientnet import LITE0, EfficientNetLite

WEIGHTS = Path(__file__).parent / "weights" / "depth.safetensors"

PLANES = 64  # of the volume, at inverse depths 0 to `high`
CHANNELS = 14  # of the hints, see `DepthNetwork.forward`
FLOOR = 0.02  # inverse depth, in units of `high`, at which the network's scale turns from relative to linear
_PHOTO = (16, 24, 40, 112, 192)  # channels of EfficientNet-Lite0 at 1/2 to 1/32 of the size
_WIDTHS = (40, 64, 96, 128, 128)
_LAST = 13  # blocks of EfficientNet-Lite0 that are used
_SHARPEST, _WIDEST = -6.0, 1.0  # logarithm of the spread


class _Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _Attention(nn.Module):
    """Every place looks at every other one: a transformer block over the pixels."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.after = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.ask, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.wide = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        parts = self.ask(self.norm(tokens)).view(batch, -1, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, -1, channels)
        tokens = tokens + self.out(seen)
        tokens = tokens + self.wide(self.after(tokens))
        return tokens.transpose(1, 2).reshape(batch, channels, height, width)


class _Body(nn.Module):
    """A U-Net over features of the photo and what matching tells."""

    def __init__(self) -> None:
        super().__init__()
        first, *rest = _WIDTHS
        self.volume = nn.Sequential(nn.Conv2d(PLANES, first, 1), nn.SiLU())
        self.hints = nn.Conv2d(CHANNELS, first, 3, padding=1)
        self.start = nn.Conv2d(2 * first, first, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(_WIDTHS, rest))
        self.see = nn.ModuleList(nn.Sequential(nn.GroupNorm(1, a), nn.Conv2d(a, b, 1)) for a, b in zip(_PHOTO, _WIDTHS))
        self.encode = nn.ModuleList(_Residual(width) for width in _WIDTHS)
        self.everywhere = nn.Sequential(_Attention(_WIDTHS[-2]), _Attention(_WIDTHS[-2]))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(_WIDTHS, rest))
        self.decode = nn.ModuleList(_Residual(width) for width in _WIDTHS[:-1])
        self.last = nn.Sequential(nn.GroupNorm(8, first), nn.SiLU())
        self.coarse = nn.Conv2d(first, 2, 3, padding=1)
        self.rise = nn.Conv2d(first, 16, 1)
        final = nn.Conv2d(16, 3, 3, padding=1)
        self.fine = nn.Sequential(
            nn.Conv2d(16 + 2 + 3 + 6, 24, 3, padding=1), nn.SiLU(), nn.Conv2d(24, 16, 3, padding=1), nn.SiLU(), final
        )
        for layer in (final, self.coarse):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(
        self, seen: list[Tensor], photo: Tensor, volume: Tensor, hints: Tensor, matched: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `DepthNetwork.forward`; ``seen`` are the photo's features."""
        x = self.start(torch.cat([self.volume(volume), self.hints(hints)], 1))
        levels = []
        for k, (see, encode) in enumerate(zip(self.see, self.encode)):
            x = encode((self.down[k - 1](x) if k else x) + see(seen[k]))
            if k == len(_WIDTHS) - 2:
                x = self.everywhere(x)
            levels.append(x)
        for k in reversed(range(len(_WIDTHS) - 1)):
            x = F.interpolate(self.up[k](x), levels[k].shape[-2:], mode="bilinear", align_corners=False)
            x = self.decode[k](x + levels[k])
        with torch.autocast(photo.device.type, enabled=False):  # depth itself needs more digits than bfloat16 has
            return self._depth(self.last(x.float()), photo, matched)

    def _depth(self, x: Tensor, photo: Tensor, matched: Tensor) -> tuple[Tensor, Tensor]:
        """Features at half the size to depth at full size, which keeps to the completed sweep where it is right."""
        coarse, size = self.coarse(x), photo.shape[-2:]
        wide, risen = (
            F.interpolate(part, size, mode="bilinear", align_corners=False) for part in (coarse, self.rise(x))
        )
        from_match = torch.cat([matched[:, :2] - wide[:, :1], matched[:, 2:]], 1)
        gate, shift, spread = self.fine(torch.cat([risen, wide, photo, from_match], 1)).split(1, 1)
        t = wide[:, :1] + torch.sigmoid(gate) * from_match[:, :1] + shift
        return _bounded(torch.cat([t, wide[:, 1:] + spread], 1)), _bounded(coarse)


def _bounded(out: Tensor) -> Tensor:
    """``t``, and the logarithm of the spread within what is told apart."""
    t, spread = out.split(1, 1)
    return torch.cat([t, _SHARPEST + (_WIDEST - _SHARPEST) * torch.sigmoid(spread)], 1)


class DepthNetwork(nn.Module):
    """A U-Net over a photo's features (EfficientNet-Lite0's first blocks) and the similarities of a plane sweep.

    Depth comes out as ``t = log(w / high + 0.02)`` of inverse depth ``w``, with the logarithm of the spread ``b`` of a
    Laplace distribution around it: relative where near, linear towards the sky.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = EfficientNetLite(LITE0)
        self.photo.bottlenecks = self.photo.bottlenecks[:_LAST]
        self.photo.ends = [end for end in self.photo.ends if end < _LAST - 1] + [_LAST - 1]
        del self.photo.head
        self.body = _Body()

    @staticmethod
    def packaged() -> "DepthNetwork":
        """The network with the weights that come with fvgen, ready to be used."""
        return DepthNetwork.load(WEIGHTS)

    @staticmethod
    def load(path: Path) -> "DepthNetwork":
        """The network of a file that `save` wrote.

        Raises:
            UserError: no such file, or one of another network.
        """
        network = DepthNetwork()
        try:
            network.load_state_dict(load_file(genuine(path)))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{path} holds no depth network: give the file that 'fvgen train depth' left") from error
        return network.eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write the weights in half precision."""
        weights = {
            name: value.half().contiguous() if value.is_floating_point() else value
            for name, value in self.state_dict().items()
        }
        write_whole(path, lambda file: file.write(save(weights)))

    def start_from(self, trained: EfficientNetLite) -> None:
        """See photos as a classifier does."""
        own = self.photo.state_dict()
        self.photo.load_state_dict({name: value for name, value in trained.state_dict().items() if name in own})

    def train(self, mode: bool = True) -> "DepthNetwork":
        """As usual, but the photo's normalisation keeps its statistics."""
        super().train(mode)
        self.photo.eval()
        return self

    def forward(self, photo: Tensor, volume: Tensor, hints: Tensor, matched: Tensor) -> tuple[Tensor, Tensor]:
        """Depth and its spread.

        Args:
            photo: ``[B, 3, H, W]`` float 0..1; both sides are multiples of 32.
            volume: ``[B, PLANES, H/2, W/2]`` similarities -1..1.
            hints: ``[B, CHANNELS, H/2, W/2]``, see `fvgen.scene.prior.network_inputs`.
            matched: ``[B, 6, H, W]``, see `fvgen.scene.prior.Evidence`.

        Returns:
            ``[B, 2, H, W]``: ``t`` and the logarithm of its spread; and the same at half the size.
        """
        return self.body(self.photo.stages(photo), photo, volume, hints, matched)
