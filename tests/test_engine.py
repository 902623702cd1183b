"""The trainer: counts, averages, checkpoints that are whole or not there, resuming to the bit, several processes."""

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fvgen import charts
from fvgen.distillation.config import AnchorConfig, DistillationConfig
from fvgen.errors import UserError
from fvgen.models import VideoModel, preset
from fvgen.models.unet import Stage
from fvgen.training import checkpoints, run_folder
from fvgen.training.distributed import DistributedContext
from fvgen.training.engine import Trainer, Turn, warmed_cosine
from fvgen.training.engine_config import EngineConfig
from fvgen.training.logs import RunLog
from fvgen.training.recipes import StudentRecipe
from fvgen.training.run_folder import note_run, read_log
from fvgen.training.toy import Mixture, ToyAblation, ToyDenoiser, energy_distance, measure, run_toy, toy_task
from two_processes import together

# Both stages, a batch that two processes can share, and two figures in the log.
RECIPE = StudentRecipe(init_steps=4, match_steps=8, critic_steps=2, batch=8, lr=1e-3)
ENGINE = EngineConfig(device="cpu", save_every=1e9)


def trainer_of(folder: Path, recipe: StudentRecipe = RECIPE, engine: EngineConfig = ENGINE) -> Trainer:
    torch.manual_seed(0)
    world = DistributedContext()
    return Trainer(toy_task(ToyDenoiser(32), Mixture(), recipe, folder, world), folder, engine, world)


def stored(folder: Path, recipe: StudentRecipe = RECIPE) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint, as a fresh trainer of one process reads them."""
    return {
        name: t.clone() for name, t in trainer_of(folder, recipe)._tensors().items() if not name.startswith("random")
    }


def lines(folder: Path) -> list[dict]:
    """The log without clocks, and without what looks back over the sitting."""
    left_out = ("seconds", "memory", "accuracy", "calibration", "weight_q")
    return [{k: v for k, v in line.items() if not k.startswith(left_out)} for line in read_log(folder)]


def in_a_process(target, *arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def train_until_killed(folder: Path, step: int) -> None:
    """Train; save after ``step`` steps, go on for two more and die."""
    torch.set_num_threads(1)
    trainer = trainer_of(folder)
    original = trainer.task.after

    def after(done: int) -> dict:
        if done + 1 == step:
            trainer._save()
        if done + 1 == step + 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(done)

    trainer.task.after = after
    trainer.run()


@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_to_the_bit(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    trainer_of(straight).run()
    process = in_a_process(train_until_killed, broken, 6)
    process.join(600)
    assert process.exitcode == -signal.SIGKILL
    assert trainer_of(broken).step == 6
    trainer_of(broken).run()
    one, two = stored(straight), stored(broken)
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert lines(straight) == lines(broken)
    assert [line["step"] for line in lines(broken)] == list(range(12))


def test_a_checkpoint_holds_everything(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.run()
    newest = run_folder.whole_checkpoints(tmp_path)[-1]
    kinds = {".".join(name.split(".")[:2]) for name in checkpoints.names_in(newest)}
    expected = {f"{r}.{k}" for r in trainer.roles for k in ("weights", "exp_avg", "exp_avg_sq", "step")}
    assert kinds == expected | {"student.average", "random.0"}
    facts = run_folder.facts_of(newest)
    assert facts["counts"] == {"student": [12, 0, 0], "fake_score": [16, 0, 0], "head": [24, 0, 0]}
    assert facts["recipe"]["distillation"]["divergence"] == "softened_reverse_kl"
    assert facts["step"] == 12


def test_batches_are_drawn_beside_the_networks_without_taking_their_threads(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trainer, seen = trainer_of(tmp_path), []
        batch, loss = trainer.task.batch, trainer.task.loss
        trainer.task.batch = lambda *given: seen.append(("draws", torch.get_num_threads())) or batch(*given)
        trainer.task.loss = lambda *given: seen.append(("learns", torch.get_num_threads())) or loss(*given)
        trainer.run()
        assert set(seen) == {("draws", 1), ("learns", 2)}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_counts_rates_and_averages_follow_each_role(tmp_path):
    trainer = trainer_of(tmp_path)
    seen = {name: [] for name in trainer.roles}
    for name, counted in trainer.roles.items():
        counted.role.lr = lambda update, name=name: seen[name].append(update) or 1e-3
    start = [p.clone() for p in trainer.task.average.parameters()]
    weights = []
    trainer.task.after = lambda step: weights.append([p.clone() for p in trainer.task.nets.student.parameters()]) or {}
    trainer.run()
    assert seen == {"student": list(range(12)), "fake_score": list(range(16)), "head": list(range(24))}
    expected = start
    for current in weights:
        expected = [torch.lerp(a, c, 1 - RECIPE.ema) for a, c in zip(expected, current)]
    for a, e in zip(trainer.task.average.parameters(), expected):
        torch.testing.assert_close(a, e)
    last = lines(tmp_path)[-1]
    assert (last["updates_student"], last["updates_fake_score"], last["updates_head"]) == (12, 16, 24)


def test_what_is_measured_now_and_then_is_logged_whatever_the_interval(tmp_path):
    trainer = trainer_of(tmp_path, engine=replace(ENGINE, log_every=5))
    trainer.task.after = lambda step: {"measured": 1.0} if step == 7 else {}
    trainer.run()
    assert [line["step"] for line in read_log(tmp_path)] == [0, 5, 7, 10, 11]
    assert [line["step"] for line in read_log(tmp_path) if "measured" in line] == [7]


def test_the_last_good_ones_are_kept_and_half_ones_ignored(tmp_path):
    trainer = trainer_of(tmp_path, engine=replace(ENGINE, save_every=0.0))
    trainer.run()
    assert [p.name for p in run_folder.whole_checkpoints(tmp_path)] == ["step-00000011", "step-00000012"]
    half = tmp_path / "checkpoints" / "step-00000099.partial"
    half.mkdir()
    (half / "junk").write_text("junk")
    assert trainer_of(tmp_path).step == 12
    trainer.step = 13
    trainer._save()
    assert not half.exists()


def test_non_finite_gradients_are_skipped_counted_and_in_the_end_fatal(tmp_path):
    trainer = trainer_of(tmp_path, engine=replace(ENGINE, nonfinite_limit=3))
    loss, turns = trainer.task.loss, []

    def poisoned(turn: Turn, batch, draws):
        value, figures = loss(turn, batch, draws)
        turns.append(turn.kind)
        return (value * math.inf if turn.kind == "student" and len(turns) > 3 else value), figures

    trainer.task.loss = poisoned
    with pytest.raises(UserError, match="student.*not finite"):
        trainer.run()
    counted = trainer.roles["student"]
    assert (counted.updates, counted.skipped) == (1, 3)
    assert all(torch.isfinite(p).all() for p in trainer.task.nets.student.parameters())
    assert all(torch.isfinite(p).all() for p in trainer.task.average.parameters())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_and_leaves(tmp_path, number):
    trainer = trainer_of(tmp_path)

    def after(step: int) -> dict:
        if step == 4:
            os.kill(os.getpid(), number)
        return {}

    trainer.task.after = after
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(number) == before
    assert trainer_of(tmp_path).step == 5


def test_accumulated_parts_average_their_gradients(tmp_path):
    """Two equal halves of a batch give the gradient of one of them, not twice as much."""
    trainers = [trainer_of(tmp_path / str(n), engine=replace(ENGINE, accumulate=n)) for n in (1, 2)]
    for trainer in trainers:
        half, task = torch.randn(4, 2, generator=torch.Generator().manual_seed(3)), trainer.task
        task.batch = lambda step, turn, rows, half=half, task=task: (task.methods[0], half)
        task.turns = lambda step: (Turn("critic", ("head",)),)
        task.loss = lambda turn, batch, draws, task=task: (
            task.nets.head(
                task.nets.teacher.features(batch[1], torch.full((4,), 500)), torch.zeros(4, dtype=torch.long)
            )
            .square()
            .mean(),
            {},
        )
        trainer.task.steps = 3
        trainer.run()
    for a, b in zip(*(t.task.nets.head.parameters() for t in trainers)):
        torch.testing.assert_close(a, b)


def test_networks_say_what_can_be_sharded_or_computed_again():
    denoiser = VideoModel.build(preset("mini-xs"), device="meta").denoiser
    *blocks, root = denoiser.blocks()
    assert root is denoiser.unet
    assert set(blocks) == {part for part in root.modules() if isinstance(part, Stage)}
    toy = ToyDenoiser()
    assert toy.blocks() == [toy.net]


def test_a_folder_that_another_training_uses_is_refused(tmp_path):
    first = trainer_of(tmp_path)
    with pytest.raises(UserError, match="another training is running there"):
        trainer_of(tmp_path)
    first.run()
    assert trainer_of(tmp_path).step == RECIPE.init_steps + RECIPE.match_steps


def test_another_runs_folder_is_refused(tmp_path):
    trainer_of(tmp_path).run()
    torch.manual_seed(0)
    other = toy_task(ToyDenoiser(48), Mixture(), RECIPE, tmp_path, DistributedContext())
    with pytest.raises(UserError, match="teacher is .*, was .*another output folder"):
        Trainer(other, tmp_path, ENGINE, DistributedContext())
    old = tmp_path / "old"
    old.mkdir()
    (old / "state.pt").write_bytes(b"")
    with pytest.raises(UserError, match="earlier version"):
        trainer_of(old)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "dmd2", "critic_steps": 5}, "method is dmd2, was fvgen; critic-steps is 5, was 2"),
        ({"ema": 0.5}, "ema is 0.5, was 0.99"),
        ({"distillation": replace(RECIPE.distillation, critic="frozen")}, "critic is frozen, was online"),
    ],
)
def test_another_recipe_is_refused_in_a_line_that_names_the_fields(tmp_path, change, named):
    trainer_of(tmp_path, replace(RECIPE, match_steps=1, init_steps=1)).run()
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(UserError) as refused:
        trainer_of(tmp_path, replace(RECIPE, match_steps=1, init_steps=1, **change))
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "run.json").read_text() == before


def test_what_may_change_is_noted_with_its_step(tmp_path):
    first = trainer_of(tmp_path)
    first.task.after = lambda step: os.kill(os.getpid(), signal.SIGTERM) or {} if step == 4 else {}
    with pytest.raises(KeyboardInterrupt):
        first.run()
    trainer_of(tmp_path, replace(RECIPE, lr=5e-4), replace(ENGINE, log_every=3)).run()
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["changes"] == [
        {"step": 5, "field": "engine.log_every", "from": 1, "to": 3},
        {"step": 5, "field": "recipe.lr", "from": 1e-3, "to": 5e-4},
    ]
    assert told["free"]["recipe"]["lr"] == 5e-4
    assert run_folder.facts_of(run_folder.whole_checkpoints(tmp_path)[-1])["recipe"]["lr"] == 5e-4


def test_the_last_stage_may_be_made_longer_or_shorter_on_the_way(tmp_path):
    """Resumed with fewer updates, the rate falls to the new end; with more it goes on."""
    anchored = replace(RECIPE, distillation=DistillationConfig(anchor=AnchorConfig(truth=1.0)))
    first = trainer_of(tmp_path, replace(anchored, polish_steps=8))
    first.task.after = lambda step: os.kill(os.getpid(), signal.SIGTERM) or {} if step == 13 else {}
    with pytest.raises(KeyboardInterrupt):
        first.run()
    for polish in (4, 6):
        trainer_of(tmp_path, replace(anchored, polish_steps=polish)).run()
        last = run_folder.facts_of(run_folder.whole_checkpoints(tmp_path)[-1])
        assert last["step"] == last["counts"]["student"][0] == 12 + polish
    steps = [(change["step"], change["from"], change["to"]) for change in run_changes(tmp_path)]
    assert steps == [(14, 8, 4), (16, 4, 6)]
    rates = trainer_of(tmp_path, replace(anchored, polish_steps=6)).roles["student"].role.lr
    assert rates(12 + 6) == pytest.approx(0.05 * RECIPE.lr)


def run_changes(folder: Path) -> list[dict]:
    return json.loads((folder / "run.json").read_text())["changes"]


def test_scenes_may_be_added_to_a_runs_data_but_not_go(tmp_path):
    identity = {"data": {"scenes": {"train/a.tar": "1", "train/b.tar": "2"}}}
    run_folder.note_run(tmp_path, "x", identity, {}, 0)
    more = {"data": {"scenes": {**identity["data"]["scenes"], "train/c.tar": "3"}}}
    run_folder.check_run(tmp_path, "x", more)
    run_folder.note_run(tmp_path, "x", more, {}, 7)
    assert json.loads((tmp_path / "run.json").read_text())["changes"] == [
        {"step": 7, "field": "scenes", "from": 2, "to": 3}
    ]
    with pytest.raises(UserError, match="1 scenes of its training data are gone or changed"):
        run_folder.check_run(tmp_path, "x", identity)


def test_trajectories_are_used_again_only_by_who_would_make_the_same(tmp_path):
    recipe = replace(RECIPE, method="causvid", distillation=replace(RECIPE.distillation, ode_pairs=16, ode_steps=4))
    trainer_of(tmp_path / "one", recipe)
    made = (tmp_path / "one" / "trajectories" / "000000.safetensors").stat().st_mtime_ns
    shutil.copytree(tmp_path / "one" / "trajectories", tmp_path / "two" / "trajectories")
    again = trainer_of(tmp_path / "two", replace(recipe, method="regression"))
    assert again.task.store.files[0].stat().st_mtime_ns == made
    shutil.copytree(tmp_path / "one" / "trajectories", tmp_path / "three" / "trajectories")
    with pytest.raises(UserError, match="holds trajectories made otherwise: ode-steps is 8, was 4"):
        trainer_of(tmp_path / "three", replace(recipe, distillation=replace(recipe.distillation, ode_steps=8)))
    (tmp_path / "three" / "trajectories" / "trajectories.json").unlink()
    with pytest.raises(UserError, match="nothing says what made them"):
        trainer_of(tmp_path / "three", recipe)


def test_a_toys_teacher_is_used_again_only_where_it_is_the_same(tmp_path):
    small = ToyAblation(recipe=RECIPE, methods=(), seeds=(), teacher_steps=2, samples=64)
    run_toy(small, tmp_path)
    stamp = (tmp_path / "teacher.safetensors").stat().st_mtime_ns
    run_toy(small, tmp_path)
    assert (tmp_path / "teacher.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="a toy's teacher made otherwise: teacher-steps is 3, was 2"):
        run_toy(replace(small, teacher_steps=3), tmp_path)


def save_all_the_time(folder: Path) -> None:
    torch.set_num_threads(1)
    trainer_of(folder, replace(RECIPE, match_steps=100000), replace(ENGINE, save_every=0.0)).run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_it_can_always_be_resumed(tmp_path):
    """It saves after every step, so that most kills hit a checkpoint half written or half deleted."""
    generator, steps = random.Random(0), [0]
    for _ in range(20):
        process = in_a_process(save_all_the_time, tmp_path)
        deadline = time.monotonic() + 600
        while len(run_folder.whole_checkpoints(tmp_path)) < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 1.5))
        process.kill()
        process.join()
        trainer = trainer_of(tmp_path, replace(RECIPE, match_steps=100000))
        assert all(torch.isfinite(t.float()).all() for t in trainer._tensors().values())
        steps.append(trainer.step)
        trainer.alone.release()  # the next process takes the folder
    assert steps == sorted(steps)
    assert steps[-1] > 20


TOGETHER = """
import torch
from pathlib import Path
from test_engine import ENGINE, RECIPE, Mixture, ToyDenoiser, Trainer, replace, toy_task
from fvgen.training.distributed import joined
with joined("cpu") as world:
    assert world.size == 2
    for method in ("fvgen", "dmd2"):
        torch.manual_seed(0)
        folder, recipe = Path({folder!r}) / method, replace(RECIPE, method=method)
        trainer = Trainer(toy_task(ToyDenoiser(32), Mixture(), recipe, folder, world), folder, ENGINE, world)
        assert all(hasattr(p, "to_local") for p in trainer.task.roles["student"].module.parameters())
        trainer.run()
"""


@pytest.mark.timeout(900)
def test_two_processes_equal_one(tmp_path):
    """Sharded over two processes (FSDP2, gloo) every weight comes out as in one, which reads their checkpoint."""
    assert together(TOGETHER.format(folder=str(tmp_path / "shared"))) == [0, 0]
    for method in ("fvgen", "dmd2"):
        recipe = replace(RECIPE, method=method)
        alone, shared = tmp_path / "alone" / method, tmp_path / "shared" / method
        start = {name: t.clone() for name, t in trainer_of(alone, recipe)._tensors().items()}
        trainer_of(alone, recipe).run()
        one, two = stored(alone, recipe), stored(shared, recipe)
        assert set(one) == set(two)
        for name, value in one.items():
            if "weights" in name or "average" in name:
                assert (value - two[name]).abs().max() < 1e-5, name
                assert not torch.equal(value, start[name]), name
        assert trainer_of(shared, recipe).step == 12


def test_warmed_cosine():
    rates = [warmed_cosine(n, 1000, 2.0) for n in range(1001)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == pytest.approx(2.0)
    assert rates[-1] == pytest.approx(0.1)


def test_toy_measures_know_the_truth():
    mixture = Mixture()
    one, two = (mixture.sample(3000, torch.Generator().manual_seed(s)) for s in (0, 1))
    right = measure(mixture, one, two)
    assert right["modes"] == mixture.modes
    assert right["on_modes"] > 0.99
    assert right["weights_off"] < 0.05
    assert right["spread"] == pytest.approx(1.0, abs=0.05)
    collapsed = measure(mixture, mixture.centres[:1] + 0.05 * torch.randn(3000, 2), two)
    assert collapsed["modes"] == 1
    assert collapsed["energy"] > 10 * right["energy"]
    assert energy_distance(one, one + 1) > energy_distance(one, two)


def test_toy_denoiser_target_is_exact():
    """The mixture's ``E[x0 | x_t]`` agrees with an average over samples, weighted by how likely they give ``x_t``."""
    mixture, schedule = Mixture(), ToyDenoiser(8).schedule
    x0 = mixture.sample(200000, torch.Generator().manual_seed(0))
    for level, x_t in ((300, [0.7, -0.3]), (700, [0.2, 0.9])):
        t, x = torch.tensor([level]), torch.tensor([x_t])
        alpha = schedule.alphas_cumprod[level]
        likely = torch.softmax(-(x - alpha.sqrt() * x0).square().sum(-1) / (2 * (1 - alpha)), dim=0)
        torch.testing.assert_close(mixture.x0(schedule, x, t)[0], likely @ x0, atol=0.02, rtol=0)


def test_curves_are_drawn(tmp_path):
    runs = {
        "a": [{"step": n, "loss": math.exp(-n), "stage": 1} for n in range(500)],
        "b": [{"step": n, "loss": math.nan if n == 3 else 1.0} for n in range(10)],
    }
    svg = charts.curves(runs)
    assert svg.count("<path") > 2
    assert "nan" not in svg
    assert "stage" not in svg


def test_a_student_is_drawn_beside_its_teacher():
    held = {"held_psnr_student": 20.0, "held_psnr_teacher_4": 18.0, "held_psnr_teacher_50": 21.0, "held_x0_999": 0.1}
    svg = charts.curves({"a": [{"step": n, **held} for n in range(3)]})
    assert "held psnr (student, teacher 4, teacher 50 steps)" in svg
    assert svg.count("font-weight") == 2  # the error of a teacher in training has a panel of its own
    assert svg.count("stroke-dasharray") == 2
    assert charts.curves({"a": [{"step": 3, "loss": 1.0}]}).count("<circle") == 1


def test_tensorboard_shows_the_same_figures_and_pictures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunLog(tmp_path, 0, tensorboard=True) as log:
        log.write(3, {"loss_student": 0.25, "updates_student": 4})
        log.pictures(3, {"clips": torch.full((3, 8, 12), 0.5)})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/student")] == [(3, 0.25)]
    assert [(e.width, e.height) for e in events.Images("clips")] == [(12, 8)]
    assert read_log(tmp_path) == [{"step": 3, "loss_student": 0.25, "updates_student": 4}]


def test_a_log_drops_what_will_be_done_again(tmp_path):
    trainer_of(tmp_path).run()
    path = tmp_path / "log.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"step": 12, "loss": 1.0}) + "\n")
    trainer_of(tmp_path)
    assert [line["step"] for line in read_log(tmp_path)] == list(range(12))
    assert all(np.isfinite(v) for line in read_log(tmp_path) for v in line.values())


def test_a_run_may_be_told_to_save_never(tmp_path):
    """As the toys are: a number that is not finite is written and read again."""
    note_run(tmp_path, "toy", {"seed": 1}, {"engine": {"save_every": math.inf}}, 0)
    note_run(tmp_path, "toy", {"seed": 1}, {"engine": {"save_every": math.inf}}, 5)
    assert json.loads((tmp_path / "run.json").read_text())["changes"] == []
