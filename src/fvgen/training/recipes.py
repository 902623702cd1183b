"""How things are trained: typed recipes, every field an option of the command line. Light: imports no torch."""

from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from tyro.conf import arg

from fvgen.data.recipe import PAPER_CLIPS, ClipDraw
from fvgen.distillation.config import AnchorConfig, DistillationConfig, Method
from fvgen.errors import UserError
from fvgen.models.lora_config import LoraConfig
from fvgen.training.engine_config import EngineConfig

R = TypeVar("R")


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
    """Seed of data and initialisation."""


@dataclass(frozen=True)
class DepthRecipe:
    """How the depth network is trained."""

    steps: int = 3000
    """Optimizer steps."""

    batch: int = 8
    """Photos per step."""

    lr: float = 1e-3
    """Peak learning rate of AdamW, a fifth of it for the features of the photo; warmed up, then a cosine to 1 %."""

    measure_every: int = 250
    """Steps between measurements on held-out scenes."""

    seed: int = 0
    """Seed of order, augmentation and initialisation."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.measure_every) < 1 or self.lr <= 0:
            raise UserError("`steps`, `batch`, `measure_every` and `lr` are above 0")


@dataclass(frozen=True)
class Adam:
    """AdamW and what is done to gradients before it."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and the second moment."""

    decay: float = 0.01
    """Weight decay."""

    clip: float = 1.0
    """Largest norm of a network's gradient."""

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas) or self.decay < 0 or self.clip <= 0:
            raise UserError("adam: betas are in 0..1 (below 1), decay is at least 0, clip above 0")


@dataclass(frozen=True)
class HeldOut:
    """What is measured on held-out clips while a student is distilled."""

    every: int = 0
    """Student updates between measurements of its average; 0 measures nothing."""

    clips: int = 8
    """Held-out clips, always the same; over all processes."""

    teacher_steps: int = 50
    """Steps of the teacher that the student is compared with, besides as many as the student's own."""

    export: Literal["newest", "psnr", "features"] = "newest"
    """Which average becomes the student: the last one, or the best that was measured by PSNR or by the distance of
    EfficientNet-Lite0's features (needs the extra `eval`)."""

    def __post_init__(self) -> None:
        if self.every < 0 or min(self.clips, self.teacher_steps) < 1:
            raise UserError("`held_out.every` is at least 0, `held_out.clips` and `held_out.teacher_steps` at least 1")
        if self.export != "newest" and not self.every:
            raise UserError(f"`held_out.export` {self.export} needs `held_out.every` above 0")


@dataclass(frozen=True)
class TeacherRecipe:
    """How the teacher is trained."""

    steps: int = 3000
    """Optimizer steps."""

    batch: int = 2
    """Clips per step in the first phase."""

    clips: Annotated[ClipDraw, arg(name="")] = field(default_factory=lambda: ClipDraw(frames=8, crop=(32, 32)))
    """Clips of the first phase."""

    full_from: float = 0.8
    """Share of the steps after which whole pictures and up to full-frames frames are used; 1: never."""

    full_frames: int = 16
    """See full-from."""

    full_batch: int = 1
    """Clips per step in that second phase."""

    lr: float = 6e-4
    """Peak learning rate of AdamW; warmed up, then a cosine to a twentieth."""

    adam: Adam = field(default_factory=lambda: Adam((0.9, 0.99), 1e-3))
    """Its other settings."""

    ema: float = 0.998
    """Decay of the averaged weights, which are the result."""

    drop: float = 0.1
    """Probability that a clip's tokens are replaced by the null ones, for classifier-free guidance."""

    terminal: float = 0.15
    """Share of samples put at the last time, where sampling begins and the signal is pure noise."""

    vision: Literal["trained", "frozen"] = "trained"
    """Whether the image tower and the prompts learn too. ViewCrafter's are CLIP's: freeze them when it is tuned."""

    held_every: int = 200
    """Steps between measurements of the error on held-out clips; 0 measures nothing."""

    seed: int = 0
    """Seed of data, noise and initialisation."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.full_batch) < 1 or not 0 <= self.full_from <= 1:
            raise UserError("`steps`, `batch` and `full_batch` are at least 1, `full_from` is a share")


@dataclass(frozen=True)
class StudentRecipe:
    """How a student is distilled."""

    method: Method = "fvgen"
    """fvgen is the paper's; no_init, gan_init (the first stage alone) and reverse_kl are the rows of its ablation,
    gan_only is the first stage for as long as both; dmd2 and causvid are its rivals."""

    init_steps: int = 4000
    """Student updates of the first stage."""

    match_steps: int = 5000
    """Student updates of the second stage; methods of one stage take the sum."""

    polish_steps: int = 0
    """Student updates of a last stage: its anchors alone, the learning rate falling to a twentieth. Ours. It may
    be made longer or shorter while the run goes on."""

    critic_steps: int = 5
    """Updates of the critic and the fake score before each of the student."""

    batch: int = 1
    """Clips per update, over all processes and accumulated parts."""

    clips: Annotated[ClipDraw, arg(name="")] = field(default_factory=ClipDraw)
    """Which clips are drawn."""

    lr: float = 5e-5
    """Learning rate of the student, AdamW."""

    critic_lr: float = 5e-5
    """Learning rate of the fake score; the critic's small head takes head-lr times it."""

    head_lr: float = 4.0
    """Learning rate of the critic's head, as a multiple of critic-lr."""

    adam: Adam = field(default_factory=lambda: Adam((0.5, 0.99), clip=10.0))
    """Other settings of AdamW, the same for student, fake score and critic."""

    lora: LoraConfig = field(default_factory=lambda: LoraConfig(rank=0))
    """Low-rank parts of student and fake score on one frozen base, instead of networks of their own."""

    ema: float = 0.99
    """Decay of the averaged student, counted in its updates; the average is the result."""

    distillation: Annotated[DistillationConfig, arg(name="")] = field(default_factory=DistillationConfig)
    """Options of all methods."""

    held_out: HeldOut = field(default_factory=HeldOut)
    """What is measured while the student is distilled."""

    seed: int = 0
    """Seed of data and noise."""

    def __post_init__(self) -> None:
        if min(self.init_steps, self.match_steps, self.polish_steps) < 0 or self.init_steps + self.match_steps == 0:
            raise UserError("`init_steps`, `match_steps`, `polish_steps` are at least 0, and one of the first two more")
        if self.critic_steps < 1 or self.batch < 1:
            raise UserError("`critic_steps` and `batch` are at least 1")


FREE = ("lr", "critic_lr", "head_lr", "held_out", "polish_steps")  # of a recipe: may change from sitting to sitting


def split_recipe(
    recipe: TeacherRecipe | StudentRecipe | AutoencoderRecipe | DepthRecipe,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that define a run, and those that may change while it goes on."""
    fields = asdict(recipe)
    return {k: v for k, v in fields.items() if k not in FREE}, {k: v for k, v in fields.items() if k in FREE}


def recipe_of(kind: type[R], fields: dict[str, Any]) -> R:
    """A recipe from what ``dataclasses.asdict`` and JSON made of it."""
    hints, made = get_type_hints(kind), dict[str, Any]()
    for name, value in fields.items():
        inner: Any = hints[name]
        nested = isinstance(inner, type) and is_dataclass(inner)
        made[name] = recipe_of(inner, value) if nested else tuple(value) if isinstance(value, list) else value
    return kind(**made)


def variant(recipe: StudentRecipe, method: str, seed: int) -> StudentRecipe:
    """The recipe of one run of a comparison: a method, with ``+step`` where its critic is told the student's step, and
    ``+loraRANK`` where student and fake score are low-rank.

    Raises:
        UserError: another addition.
    """
    name, *more = method.split("+")
    ranks = [text.removeprefix("lora") for text in more if text.startswith("lora")]
    if any(text != "step" and not text.removeprefix("lora").isdigit() for text in more):
        raise UserError(f"{method}: add +step or +loraRANK, such as {name}+lora16, to a method")
    options = replace(recipe.distillation, critic_sees_step="step" in more)
    lora = replace(recipe.lora, rank=int(ranks[0])) if ranks else recipe.lora
    return replace(recipe, method=name, seed=seed, distillation=options, lora=lora)  # type: ignore[arg-type]


MINI_TEACHER = TeacherRecipe(
    steps=3000,
    lr=5e-4,
    full_from=0.9,
    full_batch=2,
    terminal=0.2,
    clips=ClipDraw(frames=8, crop=(32, 32), filmed=0.75),
    held_every=1000,
)
MINI_STUDENT = StudentRecipe(
    init_steps=80,
    match_steps=80,
    polish_steps=2200,
    critic_steps=1,
    batch=4,
    clips=ClipDraw(frames=8, crop=(32, 32)),
    lr=2e-4,
    head_lr=8.0,
    ema=0.995,
    distillation=DistillationConfig(
        inputs="simulated",
        guidance_scale=1.0,  # the tokens of a small teacher say nothing that its guide does not
        critic_sees_step=True,
        anchor=AnchorConfig(truth=2.0, perceptual=6.0, texture=1.5),
    ),
)
XS_STUDENT = StudentRecipe(init_steps=2, match_steps=2, critic_steps=1, clips=ClipDraw(frames=4, crop=(16, 16)))
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
# The 25-frame teacher gets used to the 16 frames of its student, as ViewCrafter's own last stage: AdamW 1e-5, batch 16.
VIEWCRAFTER_TEACHER = TeacherRecipe(
    steps=5000,
    batch=16,
    clips=PAPER_CLIPS,
    full_from=1.0,
    lr=1e-5,
    adam=Adam(),
    ema=0.999,
    terminal=0.0,
    vision="frozen",
    held_every=500,
)
# The paper's "batch size 4" is read as 4 on each of its 8 GPUs. Guidance is the teacher's own; AdamW as PyTorch has it.
VIEWCRAFTER_STUDENT = StudentRecipe(
    batch=32,
    clips=PAPER_CLIPS,
    head_lr=1.0,
    adam=Adam(clip=10.0),
    distillation=DistillationConfig(guidance_scale=7.5, guidance_rescale=0.7),
    held_out=HeldOut(every=250),
)
VIEWCRAFTER_ENGINE = EngineConfig(bf16=True, recompute=True, save_every=1800.0, picture_every=250)
VIEWCRAFTER_ONE_GPU_ENGINE = replace(VIEWCRAFTER_ENGINE, accumulate=32)
# One GPU of 24 GB: student and fake score are low-rank on the teacher's frozen weights. Factors take a higher rate.
VIEWCRAFTER_LORA_STUDENT = replace(VIEWCRAFTER_STUDENT, lora=LoraConfig(rank=32), lr=1e-4, critic_lr=1e-4)
