"""The real UNet in two processes: every option of the full-size recipes on, and the same weights as in one."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fvgen.data.latents import LatentCorpus
from fvgen.data.pairs import procedural_pair
from fvgen.data.recipe import ClipDraw
from fvgen.data.samples import Sample
from fvgen.data.shards import write_manifest, write_scene
from fvgen.models import Condition, VideoModel, preset
from fvgen.training import run_folder
from fvgen.training.distributed import DistributedContext, joined
from fvgen.training.engine import Trainer
from fvgen.training.engine_config import EngineConfig
from fvgen.training.export import export_student, remember_teacher
from fvgen.training.held_out import HeldOutRecord
from fvgen.training.recipes import VIEWCRAFTER_STUDENT, VIEWCRAFTER_TEACHER, HeldOut, variant
from fvgen.training.run_folder import read_log
from fvgen.training.student import VideoDistillationTask
from fvgen.training.teacher import TeacherTask
from two_processes import together

CLIPS = replace(VIEWCRAFTER_STUDENT.clips, frames=3, least_frames=3)
# The full-size recipes and engine; only numbers are smaller.
STUDENT = replace(
    VIEWCRAFTER_STUDENT,
    init_steps=2,
    match_steps=2,
    critic_steps=1,
    batch=2,
    clips=CLIPS,
    lr=1e-3,
    distillation=replace(VIEWCRAFTER_STUDENT.distillation, guidance_scale=2.0, ode_pairs=4, ode_steps=4),
    held_out=HeldOut(every=2, clips=3, teacher_steps=3, export="psnr"),
)
TEACHER = replace(VIEWCRAFTER_TEACHER, steps=4, batch=2, clips=CLIPS, lr=5e-2, held_every=2)  # it warms up
ENGINE = EngineConfig(device="cpu", recompute=True, save_every=1e9, picture_every=2)


def make_inputs(folder: Path) -> None:
    """Pairs, and a teacher whose layers all do something."""
    for k in range(6):
        name, split = (f"scene-{k}", "train") if k < 3 else (f"held-{k}", "heldout")
        write_scene(folder / "pairs", split, name, [Sample(name, procedural_pair(40 + k, 3, 128, 80, depth="exact"))])
    write_manifest(folder / "pairs")
    torch.manual_seed(0)
    model = VideoModel.build(preset("mini-xs"))
    for parameter in model.denoiser.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.6 / parameter[0].numel() ** 0.5)
    model.save(folder / "teacher", torch.float32)


def trainer_of(kind: str, inputs: Path, run: Path, world: DistributedContext, engine: EngineConfig = ENGINE) -> Trainer:
    """``teacher`` or a method of distillation, as :func:`variant` names them."""
    model = VideoModel.load(inputs / "teacher")
    corpus = LatentCorpus(inputs / "pairs", model)
    if kind == "teacher":
        return Trainer(TeacherTask(model, corpus, TEACHER, world), run, engine, world)
    task = VideoDistillationTask(model, corpus, variant(STUDENT, kind, 0), run, engine, world)
    return Trainer(task, run, engine, world)


def work(kind: str, inputs: Path, run: Path, kill_at: int) -> None:
    """What each process does; after ``kill_at`` steps all of them save, go on for one step and die in the next."""
    torch.set_num_threads(1)
    with joined("cpu") as world:
        assert world.size == 2
        trainer = trainer_of(kind, inputs, run, world)
        module = next(iter(trainer.task.roles.values())).module
        sharded = [hasattr(p, "to_local") for p in module.parameters()]
        assert not any(sharded) if "lora" in kind else all(sharded)
        after = trainer.task.after

        def dying(step: int) -> dict:
            if step + 1 == kill_at:
                trainer._save()
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return after(step)

        trainer.task.after = dying
        trainer.run()


def work_together(kind: str, inputs: Path, run: Path, kill_at: int = -1) -> list[int]:
    """Exit codes of two processes at `work`."""
    code = f"from test_processes import *; work({kind!r}, Path({str(inputs)!r}), Path({str(run)!r}), {kill_at})"
    return together(code)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in trainer._tensors().items() if n.split(".")[1] in ("weights", "average")}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kind", ["fvgen", *(pytest.param(k, marks=pytest.mark.slow) for k in ("teacher", "fvgen+lora4"))]
)
def test_two_processes_killed_and_resumed_equal_one(inputs, tmp_path, kind):
    """Pictures, held-out measurements, average, recomputed activations, guidance, kill -9 and a second sitting."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    trainer = trainer_of(kind, inputs, alone, DistributedContext())
    start = weights_of(trainer)
    trainer.run()
    assert work_together(kind, inputs, shared, kill_at=2) == [-signal.SIGKILL] * 2
    assert run_folder.facts_of(run_folder.whole_checkpoints(shared)[-1])["step"] == 2
    assert work_together(kind, inputs, shared) == [0, 0]
    one, two = (
        weights_of(trainer_of(kind, inputs, alone, DistributedContext())),
        weights_of(trainer_of(kind, inputs, shared, DistributedContext())),
    )
    assert set(one) == set(two)
    off, moved = ([(one[n] - other[n]).abs().flatten() for n in one] for other in (two, start))
    # AdamW's first updates are the sign of a gradient: where that is rounding alone, two sums may differ in it.
    assert float(torch.cat(off).mean()) < 1e-3 * float(torch.cat(moved).mean())
    assert float(torch.cat(off).max()) < 5e-4 < float(torch.cat(moved).max())
    logs = [read_log(folder) for folder in (alone, shared)]
    assert [line["step"] for line in logs[1]] == [0, 1, 2, 3]
    clocks = ("seconds", "memory", "accuracy", "calibration", "weight_q")
    for mine, theirs in zip(*logs):  # means over all clips, not one process's
        names = [name for name in mine if not name.startswith(clocks)]
        assert names == [name for name in theirs if not name.startswith(clocks)]
        for name in names:
            assert theirs[name] == pytest.approx(mine[name], rel=2e-3, abs=1e-4), name
    if kind != "teacher":
        held = {name for line in logs[1] for name in line if name.startswith("held_psnr")}
        assert held == {"held_psnr_student", "held_psnr_teacher_4", "held_psnr_teacher_3"}
        pictures = [sorted(p.name for p in (f / "pictures").rglob("*.png")) for f in (alone, shared)]
        assert pictures[0] == pictures[1] == ["000000.png", "000002.png", "000003.png"]
        best = [run_folder.facts_of(run_folder.whole_checkpoints(f / "best")[-1]) for f in (alone, shared)]
        assert best[0]["step"] == best[1]["step"]
        assert best[0]["figure"] == pytest.approx(best[1]["figure"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_parts_of_a_batch_equal_the_whole(inputs, tmp_path):
    """Accumulation changes memory, not what is learnt: noise and clips belong to rows of the whole batch."""
    found = []
    for parts in (1, 2):
        trainer = trainer_of(
            "fvgen", inputs, tmp_path / str(parts), DistributedContext(), replace(ENGINE, accumulate=parts)
        )
        trainer.run()
        found.append(weights_of(trainer))
    assert max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0]) < 5e-4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_latents_and_trajectories_are_shared_out(tmp_path):
    """Each process makes a part, and none waits at a barrier for what another does alone."""
    fresh = tmp_path / "inputs"
    make_inputs(fresh)
    assert work_together("causvid", fresh, tmp_path / "run") == [0, 0]
    files = sorted((tmp_path / "run" / "trajectories").glob("*.safetensors"))
    assert len(files) == 4
    alone = trainer_of("causvid", fresh, tmp_path / "alone", DistributedContext())
    for file in files:  # every trajectory is a function of its number
        mine = load_file(tmp_path / "alone" / "trajectories" / file.name)
        for name, value in load_file(file).items():
            torch.testing.assert_close(value, mine[name], atol=2e-3, rtol=2e-3)
    assert alone.step == 0
    cached = sorted(p.stem for p in (fresh / "pairs").glob("latents-*/*/*.safetensors"))
    assert cached == [*(f"held-{k}" for k in (3, 4, 5)), *(f"scene-{k}" for k in range(3))]


@pytest.mark.timeout(900)
def test_low_rank_parts_learn_on_a_base_that_stays_and_resume_to_the_bit(inputs, tmp_path):
    engine = replace(ENGINE, picture_every=0)
    straight, broken = (
        trainer_of("fvgen+lora4", inputs, tmp_path / n, DistributedContext(), engine) for n in ("one", "two")
    )
    nets, base = straight.task.nets, VideoModel.load(inputs / "teacher").denoiser
    own = {id(p) for p in nets.teacher.parameters()}
    for net in (nets.student, nets.fake_score, straight.task.average):  # one base in memory, whoever uses it
        assert own <= {id(p) for p in net.parameters()}
    straight.run()
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), nets.teacher.parameters()))
    names = {name.rpartition(".")[2] for name in weights_of(straight) if not name.startswith("head")}
    assert names == {"down", "up"}
    assert straight.roles["student"].role.module.state_dict()
    broken.task.after = lambda step: os.kill(os.getpid(), signal.SIGTERM) or {} if step == 1 else {}
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    again = trainer_of("fvgen+lora4", inputs, tmp_path / "two", DistributedContext(), engine)
    again.run()
    one, two = weights_of(straight), weights_of(again)
    assert all(torch.equal(one[name], two[name]) for name in one)
    remember_teacher(tmp_path / "one", VideoModel.load(inputs / "teacher"), str(inputs / "teacher"))
    remember_teacher(tmp_path / "one", VideoModel.load(inputs / "teacher"), "")  # unnamed, the name from before stays
    for name, adapter in (("merged", False), ("adapter", True)):
        (tmp_path / name).mkdir()
        export_student(tmp_path / "one", tmp_path / name, adapter=adapter)
    whole, small = (VideoModel.load(tmp_path / name) for name in ("merged", "adapter"))
    latents, t = torch.randn(1, 12, 4, 20, 32), torch.tensor([499])
    condition = Condition(torch.randn(1, 13, 4, 20, 32), torch.randn(1, 8, 64), None)
    with torch.no_grad():
        expected = straight.task.average.x0(latents, t, condition)
        for model in (whole, small):
            torch.testing.assert_close(model.denoiser.x0(latents, t, condition), expected, atol=2e-2, rtol=2e-2)
    sizes = [
        sum(f.stat().st_size for f in (tmp_path / name).rglob("*") if f.is_file()) for name in ("merged", "adapter")
    ]
    assert sizes[1] < 0.35 * sizes[0]


def test_the_paper_draws_sixteen_frames_with_photographs_at_both_ends():
    assert VIEWCRAFTER_STUDENT.clips == VIEWCRAFTER_TEACHER.clips == ClipDraw(16, 16, "photos", 0.0, 1.0)


def test_the_best_of_another_figure_or_of_other_clips_is_no_bar(inputs, tmp_path):
    model = VideoModel.load(inputs / "teacher")
    corpus, average = LatentCorpus(inputs / "pairs", model), torch.nn.Linear(1, 1)
    corpus.refresh()

    def resumed(**changed) -> HeldOutRecord:
        recipe = replace(STUDENT, held_out=replace(STUDENT.held_out, **changed))
        return HeldOutRecord(model, corpus, recipe, tmp_path, DistributedContext())

    first = resumed()
    assert first.best is None
    first._keep_best(average, {"held_psnr_student": 20.0}, 2)
    assert resumed().best == 20.0
    assert resumed(clips=2).best is None
    other = resumed(export="features")
    assert other.best is None
    other._keep_best(average, {"held_features_student": 30.0}, 4)  # fewer is better: 30 would not have beaten 20
    assert (resumed(export="features").best, resumed().best) == (30.0, None)
