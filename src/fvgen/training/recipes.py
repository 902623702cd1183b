"""How things are trained: typed recipes, every field an option of the command line. Light: imports no torch."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from tyro.conf import arg

from fvgen.distillation.config import AnchorConfig, DistillationConfig
from fvgen.errors import UserError


@dataclass(frozen=True)
class EngineConfig:
    """How a run is carried out; none of it changes what is learnt but for rounding."""

    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, or cuda:N; under torchrun each process takes its own."""

    bf16: bool = False
    """Compute in bfloat16 where it matters little; weights, moments, losses and schedules stay float32."""

    accumulate: int = 1
    """Parts that a batch is computed in, one after the other; their gradients are averaged."""

    recompute: bool = False
    """Keep only the inputs of each stage of the UNet and compute the rest again for the backward pass: less memory."""

    save_every: float = 120.0
    """Seconds between checkpoints."""

    keep: int = 2
    """Checkpoints kept, the newest ones."""

    log_every: int = 1
    """Steps between lines of log.jsonl."""

    picture_every: int = 0
    """Steps between pictures of the same clip; 0 makes none."""

    tensorboard: bool = False
    """Also write TensorBoard events; needs the extra `train`."""

    prefetch: int = 2
    """Batches made ahead of time."""

    nonfinite_limit: int = 20
    """Gradients in a row that may be infinite or NaN; each such update is skipped and counted."""

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.keep < 1 or self.log_every < 1:
            raise UserError("accumulate, keep and log-every are at least 1")


@dataclass(frozen=True)
class AutoencoderRecipe:
    """How the autoencoder is trained."""

    steps: int = 2000
    """Optimizer steps."""

    batch: int = 8
    """Pictures per step."""

    crop: int = 128
    """Side of each picture in pixels."""

    lr: float = 3e-4
    """Peak learning rate of AdamW; warmed up, then a cosine to a twentieth."""

    kl_weight: float = 1e-5
    """Weight of the KL divergence of the posterior from a unit Gaussian, per latent value."""

    gradient_weight: float = 0.5
    """Weight of the L1 distance of horizontal and vertical differences, which keeps edges."""

    seed: int = 0
    """Of data and initialisation."""


@dataclass(frozen=True)
class TeacherRecipe:
    """How the teacher is trained."""

    steps: int = 3000
    """Optimizer steps."""

    batch: int = 2
    """Clips per step in the first phase."""

    frames: int = 8
    """Most frames per clip in the first phase."""

    crop: tuple[int, int] = (32, 32)
    """Latent height and width of the first phase's crops."""

    full_from: float = 0.8
    """Share of the steps after which whole pictures and up to full-frames frames are used."""

    full_frames: int = 16
    """See full-from."""

    full_batch: int = 1
    """Clips per step in that second phase."""

    lr: float = 6e-4
    """Peak learning rate of AdamW; warmed up, then a cosine to a twentieth."""

    ema: float = 0.998
    """Decay of the averaged weights, which are the result."""

    drop: float = 0.1
    """Probability that a clip's tokens are replaced by the null ones, for classifier-free guidance."""

    terminal: float = 0.15
    """Share of samples put at the last time, where sampling begins and the signal is pure noise."""

    posed_share: float = 0.65
    """Share of clips filmed for real, where there are both kinds."""

    vision: Literal["trained", "frozen"] = "trained"
    """Whether the image tower and the prompts learn too. ViewCrafter's are CLIP's: freeze them when it is tuned."""

    seed: int = 0
    """Of data, noise and initialisation."""


@dataclass(frozen=True)
class StudentRecipe:
    """How a student is distilled."""

    method: Literal["fvgen", "gan_only", "reverse_kl", "no_init", "dmd2", "causvid", "regression"] = "fvgen"
    """fvgen is the paper's; gan_only, reverse_kl and no_init are its ablations; dmd2 and causvid its rivals."""

    init_steps: int = 4000
    """Student updates of the first stage."""

    match_steps: int = 5000
    """Student updates of the second stage; methods of one stage take the sum."""

    polish_steps: int = 0
    """Student updates of a last stage: its anchors alone, the learning rate falling to a twentieth. Ours."""

    critic_steps: int = 5
    """Updates of the critic and the fake score before each of the student."""

    batch: int = 1
    """Clips per update, over all processes and accumulated parts."""

    frames: int = 16
    """Most frames per clip."""

    crop: tuple[int, int] | None = None
    """Latent height and width of random crops; by default whole pictures."""

    lr: float = 5e-5
    """Of the student, AdamW."""

    critic_lr: float = 5e-5
    """Of the fake score; the critic's small head takes head-lr times it."""

    head_lr: float = 4.0
    """See critic-lr."""

    ema: float = 0.99
    """Decay of the averaged student, counted in its updates; the average is the result."""

    distillation: Annotated[DistillationConfig, arg(name="")] = field(default_factory=DistillationConfig)
    """Options of all methods."""

    seed: int = 0
    """Of data and noise."""

    def __post_init__(self) -> None:
        if min(self.init_steps, self.match_steps, self.polish_steps) < 0 or self.init_steps + self.match_steps == 0:
            raise UserError("init-steps, match-steps and polish-steps are at least 0, and one of the first two more")
        if self.critic_steps < 1 or self.batch < 1:
            raise UserError("critic-steps and batch are at least 1")


def variant(recipe: StudentRecipe, method: str, seed: int) -> StudentRecipe:
    """The recipe of one run of a comparison: a method, with ``+step`` where its critic is told the student's step."""
    name, _, told = method.partition("+")
    options = replace(recipe.distillation, critic_sees_step=told == "step")
    return replace(recipe, method=name, seed=seed, distillation=options)  # type: ignore[arg-type]


MINI_TEACHER = TeacherRecipe(steps=6000, lr=5e-4, full_from=0.85, terminal=0.2, posed_share=0.75)
MINI_STUDENT = StudentRecipe(
    init_steps=700,
    match_steps=650,
    polish_steps=400,
    critic_steps=1,
    batch=2,
    frames=8,
    crop=(32, 32),
    lr=1e-4,
    head_lr=8.0,
    ema=0.995,
    distillation=DistillationConfig(
        inputs="simulated",
        guidance_scale=1.0,  # the tokens of a small teacher say nothing that its guide does not
        critic_sees_step=True,
        anchor=AnchorConfig(truth=0.5, perceptual=2.0, texture=2.0),
    ),
)
XS_STUDENT = StudentRecipe(init_steps=2, match_steps=2, critic_steps=1, frames=4, crop=(16, 16))
TOY_STUDENT = StudentRecipe(
    init_steps=1000,
    match_steps=1000,
    critic_steps=5,
    batch=256,
    lr=2e-4,
    critic_lr=1e-3,
    head_lr=1.0,
    distillation=DistillationConfig(ode_pairs=8192),
)
# The paper's "batch size 4" is read as 4 on each of its 8 GPUs. Guidance is the teacher's own.
VIEWCRAFTER_STUDENT = StudentRecipe(
    batch=32, head_lr=1.0, distillation=DistillationConfig(guidance_scale=7.5, guidance_rescale=0.7)
)
VIEWCRAFTER_ENGINE = EngineConfig(bf16=True, recompute=True, save_every=1800.0, picture_every=250)
VIEWCRAFTER_ONE_GPU_ENGINE = replace(VIEWCRAFTER_ENGINE, accumulate=32)
