"""A student on held-out clips while it is distilled, beside its teacher and the truth."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fvgen.data.latents import Corpus
from fvgen.diffusion.random import BatchRandom
from fvgen.errors import UserError
from fvgen.files import write_json
from fvgen.models.efficientnet import LITE0, EfficientNetLite
from fvgen.models.model import ModelConfig, VideoModel
from fvgen.models.sampling import sample_latents
from fvgen.models.weight_files import Weights
from fvgen.progress import track
from fvgen.training import checkpoints, run_folder
from fvgen.training.distributed import DistributedContext
from fvgen.training.perceptual import clip_figures
from fvgen.training.recipes import StudentRecipe
from fvgen.training.teacher import batch_condition, held_out_share

BEST = "best"  # folder in the run's with the best average that was measured
_BETTER = {"psnr": 1.0, "features": -1.0}  # sign of what is better


def student_config(teacher: ModelConfig, steps: int) -> ModelConfig:
    """The configuration of a teacher's student, which is sampled in few steps, without guidance."""
    sampling = replace(teacher.sampling, steps=steps, guidance_scale=1.0, temperature=1.0, few_step=True)
    return replace(teacher, sampling=sampling)


def chosen_best(folder: Path, export: str) -> bool:
    """Whether a run's student is the best average that was measured."""
    return export != "newest" and bool(run_folder.whole_checkpoints(folder / BEST))


class HeldOutRecord:
    """Measures the averaged student on the same few held-out clips, with the same noise, and keeps the best average.

    Figures are of what is shown (`VideoModel.shown_latents`) of the frames that are no photographs, against the truth
    as the autoencoder decodes it, so that its own error counts for nobody. The teacher's, at the student's number of
    steps and at many, are measured once.

    Args:
        model: the teacher; its denoiser may be sharded later.
        corpus: has the held-out clips.
        recipe: says which figures, how often, of how many clips.
        folder: of the run; ``best/`` and ``held_out.json`` are kept there.
        world: the processes, each of which takes some of the clips.

    Raises:
        UserError: no held-out clips, or no network for the figure that chooses.
    """

    def __init__(
        self, model: VideoModel, corpus: Corpus, recipe: StudentRecipe, folder: Path, world: DistributedContext
    ) -> None:
        self.model, self.corpus, self.recipe, self.folder, self.world = model, corpus, recipe, folder, world
        config = recipe.held_out
        if not corpus.held:
            raise UserError("`held_out.every`: there are no held-out clips; prepare some (`held_out`), or set it to 0")
        self.network = self._network()
        self.clips = min(config.clips, len(corpus.held))
        steps = (recipe.distillation.steps, config.teacher_steps)
        told = {"clips": corpus.held[: self.clips], "frames": recipe.clips.frames, "steps": steps}
        self.key = run_folder.flat({**told, "features": self.network is not None})
        path = folder / "held_out.json"
        stored = json.loads(path.read_text()) if path.is_file() else {}
        # What an earlier sitting measured, where it is of these clips; and its best, where it was chosen as now.
        self.teacher: dict[str, float] = stored["teacher"] if stored.get("key") == self.key else {}
        whole = run_folder.whole_checkpoints(folder / BEST)
        facts = run_folder.facts_of(whole[-1]) if whole else {}
        same = bool(facts) and (facts["by"], facts["held_out"]["clips"]) == (config.export, config.clips)
        self.best: float | None = facts["figure"] if same else None

    def _network(self) -> EfficientNetLite | None:
        try:
            network = EfficientNetLite.published(LITE0, Weights())
        except UserError:
            if self.recipe.held_out.export == "features":
                raise
            return None
        return network.eval().requires_grad_(False).to(self.world.device)

    @torch.no_grad()
    def measure(self, average: Any, updates: int) -> dict[str, float]:
        """Figures of the averaged student and, for comparison, of the teacher, as ``held_FIGURE_student`` and so on.

        All processes call this together. Where the student is the best so far, its average is kept.
        """
        if not self.teacher:
            for steps in dict.fromkeys((self.recipe.distillation.steps, self.recipe.held_out.teacher_steps)):
                self.teacher |= self._figures(self.model.denoiser, self.model.config, steps, f"teacher_{steps}")
            if self.world.rank == 0:
                write_json(self.folder / "held_out.json", {"key": self.key, "teacher": self.teacher}, finite=False)
        steps = self.recipe.distillation.steps
        found = self._figures(average, student_config(self.model.config, steps), steps, "student")
        self._keep_best(average, found, updates)
        return {**found, **self.teacher}

    def _figures(self, denoiser: Any, config: ModelConfig, steps: int, who: str) -> dict[str, float]:
        model = VideoModel(config, self.model.autoencoder, self.model.conditioner, denoiser)
        sums: dict[str, float] = {}
        clips = list(held_out_share(self.corpus, self.world, self.clips))
        for k, name, counts in track(clips, f"held-out clips of {who.replace('_', ' at ')}"):
            for figure, value in self._clip(model, name, steps, k).items():
                sums[figure] = sums.get(figure, 0.0) + counts * value
        means = self.world.mean(sums)
        return {f"held_{figure}_{who}": value * self.world.size / self.clips for figure, value in means.items()}

    def _clip(self, model: VideoModel, name: str, steps: int, seed: int) -> dict[str, float]:
        frames = self.recipe.clips.frames
        batch = self.corpus.held_batch(name, frames).to(self.world.device)
        condition, noise = batch_condition(model, batch), BatchRandom((seed, 7)).noise(batch.latents)
        scale, source = model.config.sampling.guidance_scale, torch.Generator().manual_seed(seed)
        made = model.shown_latents(sample_latents(model, condition, noise, steps, scale, source), condition)
        asked = ~self.corpus.held_clip(name).photo[:frames]
        shown = (latents[:, :, asked.to(latents.device)].float() for latents in (made, batch.latents))
        made, true = (((self.model.autoencoder.decode(x)[0] + 1) / 2).clamp(0, 1) for x in shown)
        return clip_figures(made, true, self.network)

    def _keep_best(self, average: nn.Module, found: Mapping[str, float], updates: int) -> None:
        export = self.recipe.held_out.export
        if export == "newest":
            return
        figure = found[f"held_{export}_student"]
        if self.best is not None and _BETTER[export] * figure <= _BETTER[export] * self.best:
            return
        self.best = figure
        tensors = {f"student.average.{name}": value for name, value in average.state_dict().items()}
        facts = {"step": updates, "figure": figure, "by": export, "held_out": asdict(self.recipe.held_out)}
        checkpoints.save(self.folder / BEST, updates, tensors, facts, self.world, keep=1)
