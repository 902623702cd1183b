"""Distillation of a teacher into a few-step student: GAN initialisation, then softened distribution matching."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fvgen.data.latents import ClipBatch, LatentCorpus
from fvgen.distillation.critic import CriticHead
from fvgen.distillation.methods import DistillationConfig, FewStepDistillation, Roles
from fvgen.models.denoiser import Condition
from fvgen.models.model import SamplingConfig, VideoModel
from fvgen.progress import track
from fvgen.training.runs import Run
from fvgen.training.teacher import batch_condition, update_average


@dataclass(frozen=True)
class StudentRecipe:
    """How a student is distilled.

    Attributes:
        gan_steps: student updates of stage 1.
        dmd_steps: student updates of stage 2.
        critic_steps: updates of the critic (and in stage 2 of the fake score) for each of the student.
        batch: clips per update.
        frames: most frames per clip.
        crop: latent height and width of the crops; ``None`` uses whole pictures.
        lr: of the student, AdamW.
        critic_lr: of the head and of the fake score.
        ema: decay of the averaged student, counted in student updates; the average is the result.
        distillation: see :class:`DistillationConfig`.
        seed: of data and noise.
    """

    gan_steps: int = 4000
    dmd_steps: int = 5000
    critic_steps: int = 5
    batch: int = 1
    frames: int = 16
    crop: tuple[int, int] | None = None
    lr: float = 5e-5
    critic_lr: float = 5e-5
    ema: float = 0.99
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    seed: int = 0


class _Distiller:
    """The roles with their optimizers, and one student update of either stage."""

    def __init__(self, model: VideoModel, recipe: StudentRecipe) -> None:
        self.model, self.recipe = model, recipe
        teacher = model.denoiser.eval().requires_grad_(False)
        student, fake = copy.deepcopy(teacher).requires_grad_(True), copy.deepcopy(teacher).requires_grad_(True)
        channels = model.config.unet.channel_mult[-1] * model.config.unet.model_channels
        self.roles = Roles(teacher, student, fake, CriticHead(channels))
        self.average = copy.deepcopy(student)
        self.method = FewStepDistillation(self.roles, recipe.distillation)
        trained: dict[str, tuple[nn.Module, float]] = {
            "student": (student, recipe.lr),
            "fake_score": (fake, recipe.critic_lr),
            "head": (self.roles.head, recipe.critic_lr * 4),
        }
        self.modules = {name: module for name, (module, _) in trained.items()}
        self.optimizers = {
            name: torch.optim.AdamW(module.parameters(), lr=lr, betas=(0.5, 0.99))
            for name, (module, lr) in trained.items()
        }

    def update(self, role: str, loss: Tensor) -> float:
        """One optimizer step of one role; a non-finite gradient skips it. Returns the gradient's norm."""
        module, optimizer = self.modules[role], self.optimizers[role]
        optimizer.zero_grad(set_to_none=True)
        parameters = list(module.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
            parameter.grad = gradient
        norm = float(nn.utils.clip_grad_norm_(parameters, 10.0))
        if np.isfinite(norm):
            optimizer.step()
        return norm

    def learn_fakes(
        self, batch: ClipBatch, condition: Condition, stage: int, generator: torch.Generator
    ) -> dict[str, float]:
        """One update of the critic, and in stage 2 of the fake score."""
        with torch.no_grad():
            fake = self.method.student_x0(batch.latents, condition, generator)
        critic = self.method.critic(batch.latents, fake, condition, generator)
        self.update("head", critic)
        if stage == 1:
            return {"critic": critic.item()}
        denoising = self.method.fake_denoising(fake, condition, generator)
        self.update("fake_score", denoising)
        return {"critic": critic.item(), "fake_score": denoising.item()}

    def learn_student(
        self, batch: ClipBatch, condition: Condition, stage: int, generator: torch.Generator
    ) -> dict[str, float]:
        """One update of the student and of its average."""
        fake = self.method.student_x0(batch.latents, condition, generator)
        loss_of = self.method.adversarial if stage == 1 else self.method.distribution_matching
        loss = loss_of(fake, condition, generator)
        error = (fake.detach() - batch.latents).square().mean().item()
        norm = self.update("student", loss)
        update_average(self.average, self.roles.student, self.recipe.ema)
        return {"student": loss.item(), "norm": norm, "x0_error": error}

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        state: dict[str, Any] = {f"role.{name}": module.state_dict() for name, module in self.modules.items()}
        state |= {f"optimizer.{name}": optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {**state, "average": self.average.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        for name, module in self.modules.items():
            module.load_state_dict(state[f"role.{name}"])
            self.optimizers[name].load_state_dict(state[f"optimizer.{name}"])
        self.average.load_state_dict(state["average"])


def distill(
    model: VideoModel, corpus: LatentCorpus, recipe: StudentRecipe, folder: Path, bf16: bool = False
) -> VideoModel:
    """Distil ``model`` into a few-step student, resuming from ``folder``.

    Returns:
        A new model: the averaged student with the teacher's autoencoder and conditioner, sampled without guidance.
    """
    run, distiller = Run(folder), _Distiller(model, recipe)
    state, start = run.load(), 0
    if state is not None:
        distiller.load(state)
        start = state["step"]
    corpus.refresh()
    total = recipe.gan_steps + recipe.dmd_steps
    for step in track(range(start, total), "distillation"):
        stage = 1 if step < recipe.gan_steps else 2
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        logged: dict[str, float] = {}
        for turn in range(recipe.critic_steps + 1):
            rng = np.random.default_rng((recipe.seed, step, turn))
            frames = int(rng.integers(2, recipe.frames + 1))
            batch = corpus.sample(rng, recipe.batch, frames, recipe.crop, 0.75)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                with torch.no_grad():
                    condition = batch_condition(model, batch)
                learn = distiller.learn_fakes if turn < recipe.critic_steps else distiller.learn_student
                logged |= learn(batch, condition, stage, generator)
        run.log(step=step, stage=stage, **logged)
        if run.save_due or step + 1 == total:
            run.save({**distiller.state(), "step": step + 1})
    sampling = SamplingConfig(steps=recipe.distillation.steps, guidance_scale=1.0, few_step=True)
    config = replace(model.config, sampling=sampling)
    student = distiller.average.eval().requires_grad_(False)
    return VideoModel(config, model.autoencoder, model.conditioner, student).eval()
