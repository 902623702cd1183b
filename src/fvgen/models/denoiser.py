"""The one view that samplers and distillation have of a video network."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fvgen.diffusion import NoiseSchedule, ScheduleConfig
from fvgen.models.unet import VideoUNet


@dataclass(frozen=True)
class Condition:
    """What a clip is generated from.

    Attributes:
        concat: ``[B, Cc, T, h, w]`` latents of the guide, with the coverage channel where the model has one.
        context: ``[B, L, D]`` text and image tokens.
        null_context: ``[B, L, D]`` tokens that say nothing, for classifier-free guidance.
        fs: ``[B]`` frame stride, or ``None`` for the network's default.
    """

    concat: Tensor
    context: Tensor
    null_context: Tensor
    fs: Tensor | None = None

    def select(self, rows: slice | Tensor) -> "Condition":
        """The condition of some clips of the batch."""
        fs = None if self.fs is None else self.fs[rows]
        return Condition(self.concat[rows], self.context[rows], self.null_context[rows], fs)


class VideoDenoiser(nn.Module):
    """A velocity-predicting UNet with its schedule.

    Outside, ``x0`` is always the unscaled latent ``[B, C, T, h, w]``; times are ``[B]`` integers.

    Args:
        unet: predicts the velocity, or what the guide leaves of it.
        schedule: of the noise.
        around_guide: the velocity is ``unet(...) - s_t c_t guide``: the network predicts noise and the difference
            between the clip and its guide, so that what the guide knows passes exactly. The teacher has this off.
    """

    def __init__(self, unet: VideoUNet, schedule: ScheduleConfig, around_guide: bool = False) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = NoiseSchedule(schedule)
        self.around_guide = around_guide

    def _known(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor | float:
        if not self.around_guide:
            return 0.0
        guide = condition.concat[:, : x_t.shape[1]]
        return self.schedule.velocity(guide, torch.zeros_like(guide), t)

    def velocity(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The predicted velocity, float32."""
        inputs = torch.cat([x_t, condition.concat.to(x_t.dtype)], dim=1)
        return self.unet(inputs, t, condition.context, condition.fs).float() + self._known(x_t, t, condition)

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predicted clean latents."""
        return self.schedule.x0_from_velocity(x_t, self.velocity(x_t, t, condition), t)

    def features(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Output of the middle block, ``[B, C, T, h, w]``; the decoder does not run."""
        inputs = torch.cat([x_t, condition.concat.to(x_t.dtype)], dim=1)
        return self.unet(inputs, t, condition.context, condition.fs, features_only=True)

    def x0_and_features(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Both in one pass."""
        inputs = torch.cat([x_t, condition.concat.to(x_t.dtype)], dim=1)
        velocity, features = self.unet(inputs, t, condition.context, condition.fs, return_features=True)
        velocity = velocity.float() + self._known(x_t, t, condition)
        return self.schedule.x0_from_velocity(x_t, velocity, t), features

    @staticmethod
    def drop(condition: Condition) -> Condition:
        """The unconditional branch: tokens are dropped, the guide stays (as in ViewCrafter)."""
        return replace(condition, context=condition.null_context)

    def drop_text(self, condition: Condition) -> Condition:
        """The branch that sees the image but not the prompt, for multi-condition guidance."""
        text = self.unet.config.text_tokens
        context = torch.cat([condition.null_context[:, :text], condition.context[:, text:]], dim=1)
        return replace(condition, context=context)
