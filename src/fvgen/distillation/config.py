"""Options of the distillation, with what the paper leaves open decided and said. Light: imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from fvgen.errors import UserError

Divergence = Literal[
    "reverse_kl", "softened_reverse_kl", "jensen_shannon", "forward_kl", "squared_hellinger", "jeffreys"
]

Method = Literal["fvgen", "gan_init", "gan_only", "reverse_kl", "no_init", "dmd2", "causvid", "regression"]

RECIPES: dict[Method, str] = {
    "fvgen": "the paper: GAN initialisation, then the softened reverse KL",
    "gan_init": "stage 1 alone, for as long as it takes in the paper's method",
    "gan_only": "stage 1 for as long as both stages",
    "reverse_kl": "GAN initialisation, then the plain reverse KL",
    "no_init": "the softened reverse KL from the teacher's weights, without stage 1",
    "dmd2": "joint distribution matching and GAN, critic on the fake score, simulated inputs",
    "causvid": "regression on the teacher's trajectories, then the plain reverse KL",
    "regression": "regression on the teacher's trajectories alone",
}
TOY_METHODS = ("gan_only", "reverse_kl", "fvgen", "no_init", "dmd2", "causvid", "gan_only+step", "fvgen+step")
"""What ``fvgen distill toy`` compares; ``+step`` tells the critic the student's step."""


@dataclass(frozen=True)
class AnchorConfig:
    """Weights of losses that compare the student's clips with the true ones, beside what the method asks."""

    truth: float = 0.0
    """Weight of the mean squared error of latents."""

    perceptual: float = 0.0
    """Of the distance of EfficientNet-Lite1's features of decoded frames; needs the extra `train`."""

    texture: float = 0.0
    """Of the difference of the logarithms of local gradient energy in decoded frames: as sharp as the truth, wherever
    the edges are."""

    frames: int = 3
    """Frames of each clip, chosen at random, that are decoded."""

    def __post_init__(self) -> None:
        if min(self.truth, self.perceptual, self.texture) < 0 or self.frames < 1:
            raise UserError("the weights of an anchor are at least 0, its frames at least 1")

    @property
    def decodes(self) -> bool:
        """Whether frames are compared as pictures."""
        return self.perceptual > 0 or self.texture > 0


@dataclass(frozen=True)
class DistillationConfig:
    """What all stages share."""

    steps: int = 4
    """Sampling steps of the student; its times are the trailing ones: 999, 749, 499, 249."""

    least_time: int = 20
    """Least noise at which distributions are compared."""

    most_time: int = 980
    """Most noise at which distributions are compared."""

    guidance_scale: float | None = None
    """Classifier-free guidance of the real score: 1 is none; by default as the teacher is sampled."""

    guidance_rescale: float = 0.7
    """Rescale of the guided real score, as the teacher samples."""

    divergence: Divergence = "softened_reverse_kl"
    """Weight of the distribution-matching gradient."""

    inputs: Literal["noised_real", "simulated"] = "noised_real"
    """What the student denoises in training: noised real clips (Algorithm 1, line 5), or its own unfinished samples."""

    critic: Literal["online", "frozen"] = "online"
    """Whether the critic goes on learning while distributions are matched; frozen, its ratio goes stale."""

    reals: Literal["data", "teacher"] = "data"
    """Real clips: of the data (the paper), or the ends of the teacher's own trajectories."""

    adversarial: Literal["bce", "hinge", "relativistic"] = "bce"
    """Loss of the critic; only bce gives the ratio that a weighted divergence needs."""

    r1_weight: float = 0.0
    """Weight of the critic's approximate R1; it pulls the ratio towards 1, so little or none."""

    r1_sigma: float = 0.01
    """How far approximate R1 moves the noised clips."""

    unnormalised: bool = False
    """Do not divide the matching gradient of each clip by the teacher's mean distance from it."""

    critic_features: Literal["teacher", "fake_score"] = "teacher"
    """Whose middle block the critic sees: the frozen teacher's (the paper), or the fake score's, trained with it."""

    critic_sees_step: bool = False
    """Tell the critic at which of its times the student made a clip. Untold (the paper), it holds what is made at all
    times together to the data, and each time may specialise in a part of it."""

    adversarial_weight: float = 5e-3
    """Joint training (DMD2): weight of the student's adversarial loss beside distribution matching."""

    critic_weight: float = 1e-2
    """Joint training (DMD2): weight of the critic's loss beside the fake score's."""

    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    """How the student is held to the true clips; the paper does not."""

    ode_pairs: int = 1500
    """Teacher trajectories for the regression, where a method has one."""

    ode_steps: int = 48
    """Steps of these trajectories, a multiple of the student's so that they pass through its times."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_time < self.most_time <= 999:
            raise UserError(f"times {self.least_time}..{self.most_time}: choose least < most in 0..999")
        if self.steps < 1 or self.ode_steps % self.steps:
            raise UserError(f"{self.ode_steps} trajectory steps do not pass through the times of {self.steps} steps")
        if self.r1_sigma <= 0:
            raise UserError("`r1_sigma` must be above 0")

    @property
    def scale(self) -> float:
        """The teacher's guidance scale; 1, no guidance, where ``guidance_scale`` was left open."""
        return 1.0 if self.guidance_scale is None else self.guidance_scale
