"""The one view that samplers and distillation have of a video network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.diffusion import NoiseSchedule, ScheduleConfig
from fvgen.models.attention import Keys
from fvgen.models.unet import VideoUNet


@dataclass(frozen=True)
class Condition:
    """What a clip is generated from.

    Attributes:
        concat: ``[B, Cc, T, h, w]`` latents of the guide, with the coverage channel where the model has one.
        context: ``[B, L, D]`` text and image tokens.
        null_context: ``[B, L, D]`` tokens that say nothing, for classifier-free guidance; ``None`` if there is none.
        fs: ``[B]`` frame stride, or ``None`` for the network's default.
        keys: the tokens' keys and values for each stage, once :meth:`VideoDenoiser.prepared` has made them.
        temperature: factor of the guide's supposed errors: below 1 results vary less (:meth:`VideoDenoiser.prior`).
    """

    concat: Tensor
    context: Tensor
    null_context: Tensor | None
    fs: Tensor | None = None
    keys: tuple[Keys | None, ...] | None = None
    temperature: float = 1.0

    def guide(self, channels: int) -> tuple[Tensor, Tensor]:
        """The guide's latents, ``C`` channels ``[B, C, T, h, w]``, and how much of each latent pixel was measured,
        ``[B, 1, T, h, w]`` in 0..1, of a model with the coverage channel; float32."""
        concat = self.concat.float()
        return concat[:, :channels], ((concat[:, channels : channels + 1] + 1) / 2).clamp(0, 1)

    @staticmethod
    def joined(parts: "Sequence[Condition]") -> "Condition":
        """One batch of several conditions of one kind and size, its keys not made yet."""

        def rows(name: str) -> Any:
            found = [getattr(part, name) for part in parts]
            return None if found[0] is None else torch.cat(found)

        concat, context, null, fs = map(rows, ("concat", "context", "null_context", "fs"))
        return Condition(concat, context, null, fs, temperature=parts[0].temperature)


@dataclass(frozen=True)
class GuideVariance:
    """Mean squared error of a guide's latents: larger where nothing was measured, and where the guide is busy.

    Attributes:
        measured, guessed: on flat areas.
        measured_activity, guessed_activity: times the local activity, in addition.
    """

    measured: float = 0.005
    measured_activity: float = 0.25
    guessed: float = 0.15
    guessed_activity: float = 1.5

    def at(self, guide: Tensor, share: Tensor) -> Tensor:
        """The variance ``[B, 1, T, h, w]`` of a guide's latents.

        Args:
            guide: ``[B, C, T, h, w]``; its activity is the variance within 3x3 latent pixels, mean over channels.
            share: ``[B, 1, T, h, w]``, how much of each latent pixel was measured.
        """
        frames = guide.transpose(1, 2).flatten(0, 1)
        deviation = (frames - _local_mean(frames)).square().mean(1, keepdim=True)
        activity = _local_mean(deviation).unflatten(0, (guide.shape[0], -1)).transpose(1, 2)
        measured = self.measured + self.measured_activity * activity
        guessed = self.guessed + self.guessed_activity * activity
        return torch.lerp(guessed, measured, share)


def _local_mean(x: Tensor) -> Tensor:
    """Mean over 3x3 pixels of ``[N, C, h, w]``, fewer at the border."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class VideoDenoiser(nn.Module):
    """A velocity-predicting UNet with its schedule.

    Outside, ``x0`` is always the unscaled latent ``[B, C, T, h, w]``; times are ``[B]`` integers.

    With a ``guide_variance`` the network starts from what the guide alone says. If the clip were the guide plus
    Gaussian errors of variance ``q``, then with ``r = x_t - a c guide`` and ``d = a^2 c^2 q + s^2`` the best velocity
    would be ``a s (1 - c^2 q) / d r - s c guide``, wrong by the variance ``c^2 q / d``. The network predicts that error
    in units of its standard deviation (after Karras et al. 2022, EDM, table 1, where the clip is known to be near zero
    instead of near a guide). The published teacher has none of it.

    Args:
        unet: predicts the velocity, or its deviation from the guide's.
        schedule: how its noise schedule is built.
        guide_variance: how wrong the guide's latents are, see :class:`GuideVariance`; or ``None``.
    """

    def __init__(self, unet: VideoUNet, schedule: ScheduleConfig, guide_variance: GuideVariance | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = NoiseSchedule(schedule)
        self.guide_variance = guide_variance

    def blocks(self) -> list[nn.Module]:
        """See :meth:`fvgen.models.unet.VideoUNet.blocks`: it is the UNet that is called, not this module."""
        return self.unet.blocks()

    def prior(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the velocity, given the guide; 0 and 1 where it says nothing.

        At a temperature below 1 the guide is taken to be nearer to the truth than it is. What is sampled then varies
        less about it: many steps of a small network otherwise add up to a noise of their own.
        """
        if self.guide_variance is None:
            return x_t.new_zeros(()), x_t.new_ones(())
        a, s, c = self.schedule.coefficients(t, x_t)
        guide, measured = condition.guide(x_t.shape[1])
        variance = (c * condition.temperature) ** 2 * self.guide_variance.at(guide, measured)
        guide = c * guide
        total = a * a * variance + s * s
        mean = a * s * (1 - variance) / total * (x_t.float() - a * guide) - s * guide
        return mean, (variance / total).sqrt()

    def _asked(self, x_t: Tensor, t: Tensor, condition: Condition, **wanted: bool) -> Any:
        inputs = torch.cat([x_t, condition.concat.to(x_t.dtype)], dim=1)
        context = condition.context if condition.keys is None else condition.keys
        return self.unet(inputs, t, context, condition.fs, **wanted)

    def velocity(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The predicted velocity ``[B, C, T, h, w]``, float32."""
        mean, deviation = self.prior(x_t, t, condition)
        return self._asked(x_t, t, condition).float() * deviation + mean

    def x0(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The predicted clean latents ``[B, C, T, h, w]``."""
        return self.schedule.x0_from_velocity(x_t, self.velocity(x_t, t, condition), t)

    def features(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Output of the middle block, ``[B, C, T, h, w]``; the decoder does not run."""
        return self._asked(x_t, t, condition, features_only=True)

    def x0_and_features(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """What :meth:`x0` and :meth:`features` give, in one pass."""
        velocity, features = self._asked(x_t, t, condition, return_features=True)
        mean, deviation = self.prior(x_t, t, condition)
        return self.schedule.x0_from_velocity(x_t, velocity.float() * deviation + mean, t), features

    def prepared(self, condition: Condition) -> Condition:
        """With the keys and values of its tokens: :meth:`velocity` then does not make them at every step.

        A network that is sharded over processes makes them in each pass: only then are its weights there.
        """
        if hasattr(self.unet.conv_in.weight, "to_local"):
            return condition
        return replace(condition, keys=self.unet.keys(condition.context, condition.concat.shape[2]))

    @staticmethod
    def drop(condition: Condition) -> Condition:
        """The unconditional branch: tokens are dropped, the guide stays (as in ViewCrafter).

        Raises:
            ValueError: the condition was made without a null context.
        """
        if condition.null_context is None:
            raise ValueError("this condition has no null context: it was made for sampling without guidance")
        return replace(condition, context=condition.null_context, keys=None)

    def drop_text(self, condition: Condition) -> Condition:
        """The branch that sees the image but not the prompt, for multi-condition guidance."""
        text = self.unet.config.text_tokens
        context = torch.cat([self.drop(condition).context[:, :text], condition.context[:, text:]], dim=1)
        return replace(condition, context=context, keys=None)
