"""The networks of a distillation, and the one view it has of them."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from fvgen.diffusion import NoiseSchedule


class Denoiser(Protocol):
    """What a distillation sees of a network; conditions pass through untouched.

    ``x_t`` and unscaled ``x0`` are ``[B, ...]``, times ``[B]`` int64. :class:`fvgen.models.denoiser.VideoDenoiser` is
    one; another teacher is one such adapter and its schedule.
    """

    schedule: NoiseSchedule

    def velocity(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        """Predicted velocity, float32."""

    def x0(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        """Predicted clean sample, float32."""

    def features(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        """Output of the middle block; the rest does not run."""

    def x0_and_features(self, x_t: Tensor, t: Tensor, condition: Any) -> tuple[Tensor, Tensor]:
        """Both in one pass."""

    def drop(self, condition: Any) -> Any:
        """The condition of the unguided branch."""


class Look(Protocol):
    """How a student's clips ``[B, C, T, h, w]`` are compared with the true ones as pictures, frame by frame."""

    def __call__(self, x0: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """A perceptual distance, and the difference of their texture, each ``[B]``."""


@dataclass
class Roles:
    """The networks.

    Attributes:
        teacher: frozen.
        student: starts as the teacher.
        fake_score: starts as the teacher (Algorithm 1, line 2).
        head: features, and the index ``[B]`` of the student's time, to ``[B]`` logits, positive for real.
        look: compares clips as pictures, where a loss asks for it.
    """

    teacher: Denoiser
    student: Denoiser
    fake_score: Denoiser
    head: nn.Module
    look: Look | None = None
