"""What is counted is what runs, work stays what it was, and figures are put together right. No timing is asserted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fvgen.cli.main import main
from fvgen.evaluation.benchmark.clock import ResidentPeak, resident_bytes
from fvgen.evaluation.benchmark.counting import OperationCounter, Work, count_model
from fvgen.evaluation.benchmark.floor import floor, work_table
from fvgen.evaluation.benchmark.formulas import lookup_work, splat_work, sweep_work
from fvgen.evaluation.benchmark.hardware import Machine
from fvgen.evaluation.benchmark.photos import made_up_photos
from fvgen.evaluation.benchmark.random_model import random_model
from fvgen.evaluation.benchmark.report import floors, ratios, result, rows_of, table
from fvgen.evaluation.benchmark.stages import Timing, measure_generation
from fvgen.evaluation.benchmark.systems import System, load_systems, preset_systems
from fvgen.evaluation.benchmark.tally import count_all
from fvgen.models.denoiser import Condition
from fvgen.models.presets import preset
from fvgen.outputs import write_files
from fvgen.pipeline import NovelViewPipeline

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmark.md"
CPU = torch.device("cpu")

# The guard against accidental extra work, the same on every machine: (GFLOP, operations) of `mini`'s stages for one
# clip. A change that means to alter them updates them from `fvgen benchmark count`, and docs/benchmark.md with it;
# fewer is a gain to be noted, more needs a reason.
PINNED = {
    "encode": (45.865, 41),
    "image tokens": (0.00732, 53),
    "token keys": (0.00197, 16),
    "UNet pass": (72.101, 685),
    "decode": (117.210, 83),
}
FLOP_TOLERANCE, OPERATIONS_TOLERANCE = 0.01, 0.05


@pytest.fixture(scope="module")
def mini() -> list[Work]:
    """The works of `mini`: networks, plane sweep, splatter."""
    return count_all("mini", None, None, None, torch.float32, 5, 128)[0]


@pytest.mark.parametrize("stage", PINNED)
def test_no_stage_of_mini_does_more_than_it_did(mini: list[Work], stage: str) -> None:
    (work,) = (w for w in mini if w.stage == stage)
    gflop, operations = PINNED[stage]
    assert work.flop / 1e9 == pytest.approx(gflop, rel=FLOP_TOLERANCE)
    assert work.operations == pytest.approx(operations, rel=OPERATIONS_TOLERANCE)


def test_a_generation_calls_the_networks_as_often_as_its_steps_say() -> None:
    """One pass per window and step, two with guidance; the decoder for clip and guide."""
    config = preset("mini-xs")
    student, teacher = preset_systems("mini-xs", config, None, "cpu", "float32")
    guided = replace(config.sampling, guidance_scale=2.0)
    teacher.model.config = replace(config, sampling=guided)
    teacher = replace(teacher, steps=3, all_steps=3)
    photos = made_up_photos(3, 96, 64)
    few, many = measure_generation(photos, [student, teacher], write_files, repeats=1, warmup=0, size=(64, 48))
    assert few.settings["frames"] == 15  # two windows of eight share a photo
    assert (few.calls.unet, few.calls.unet_clips) == (8, 8)
    assert (many.calls.unet, many.calls.unet_clips) == (12, 12)
    for timing in (few, many):
        assert (timing.calls.encode, timing.calls.encode_frames) == (2, 16)
        assert (timing.calls.decode, timing.calls.decode_frames) == (4, 24)  # photographs are not decoded
        assert list(rows_of(timing)) == [
            *("geometry", "render", "encode", "denoise", "decode", "compose", "write"),
            *("denoise, per step", "all but geometry", "all"),
        ]
        assert all(seconds[0] > 0 for seconds in rows_of(timing).values())
        if resident_bytes() is not None:
            assert set(timing.resident) == {"geometry", "render", "encode", "denoise", "decode", "compose", "write"}
            assert min(min(peaks) for peaks in timing.resident.values()) > 50e6  # the interpreter and PyTorch
    assert few.seconds["geometry"] == many.seconds["geometry"]
    found = result([few, many], {"dtype": "float32"})
    assert json.loads(json.dumps(found)) == found
    assert len(table([few, many]).splitlines()) == 2 + 10


def test_what_is_counted_is_what_runs() -> None:
    """On tensors without memory the same operations are dispatched as on real ones."""
    config = preset("mini-xs")
    counted = {work.stage: work for work in count_model(config, 4, (32, 32))}
    model = random_model(config, CPU, torch.float32)
    clip, coverage = torch.rand(1, 4, 3, 32, 32), torch.ones(1, 4, 32, 32, dtype=torch.bool)
    with torch.no_grad():
        with OperationCounter() as encoding:
            concat = model.concat_condition(clip, coverage)
        with OperationCounter() as looking:
            context = model.conditioner.context(clip[:, 0])
        noisy = torch.randn(model.latent_shape(clip))
        with OperationCounter() as preparing:
            condition = model.denoiser.prepared(Condition(concat, context, None))
        with OperationCounter() as denoising:
            velocity = model.denoiser.velocity(noisy, torch.tensor([500]), condition)
        with OperationCounter() as decoding:
            model.decode(velocity, concat, clip, torch.arange(4))
    runs = {"encode": encoding, "image tokens": looking, "token keys": preparing}
    runs |= {"UNet pass": denoising, "decode": decoding}
    for stage, counter in runs.items():
        assert counter.flop == counted[stage].flop, stage
        assert counter.operations == pytest.approx(counted[stage].operations, abs=4), stage
        assert counter.moved == pytest.approx(counted[stage].moved, rel=0.02), stage
    assert velocity.isfinite().all()


def test_operations_are_counted_by_the_book() -> None:
    linear, conv = nn.Linear(8, 16), nn.Conv2d(3, 5, 3, padding=1)
    tokens, images = torch.zeros(10, 8), torch.zeros(2, 3, 7, 9)
    query, key = torch.rand(2, 4, 100, 16), torch.rand(2, 4, 50, 16)
    with torch.no_grad(), OperationCounter() as counter:
        linear(tokens)
    assert (counter.flop, counter.moved) == (2 * 10 * 8 * 16, 4 * (80 + 128 + 16 + 160))
    with torch.no_grad(), OperationCounter() as counter:
        conv(images)
    assert counter.flop == 2 * (2 * 5 * 7 * 9) * 3 * 9
    with torch.no_grad(), OperationCounter() as counter:
        F.scaled_dot_product_attention(query, key, key)
    assert counter.flop == 2 * 2 * (2 * 4 * 100 * 50 * 16)
    with torch.no_grad(), OperationCounter() as counter:
        query.transpose(1, 2).flatten(2)[:, :3].expand(2, 3, 64)
    assert counter.operations == 1  # flatten copies here, the rest are views


def test_formulas_grow_with_what_they_count() -> None:
    one, more = splat_work(1000, 64, 48), splat_work(2000, 64, 48)
    assert more.flop == 2 * one.flop
    assert more.bytes - one.bytes == 1000 * 29  # 29 bytes of a point
    assert sweep_work(64, 48, 128, 4).flop > 3 * sweep_work(64, 48, 128, 1).flop / 1.5
    assert sweep_work(64, 48, 128, 4).flop == 2 * sweep_work(64, 48, 64, 4).flop
    assert lookup_work(4, 64, 48).flop == 2 * lookup_work(2, 64, 48).flop == lookup_work(2, 128, 48).flop


def test_a_floor_is_the_slower_of_computing_and_moving() -> None:
    machine = Machine("test", 2.0, 100.0)
    computing = floor(Work("a", flop=4e12, bytes=1e9, moved=3e11), machine)
    assert (computing.seconds, computing.bound, computing.unfused) == (2.0, "operations", 3.0)
    moving = floor(Work("b", flop=1e9, bytes=5e11, moved=5e11), machine)
    assert (moving.seconds, moving.bound) == (5.0, "bytes")


def timing(label: str, steps: int, all_steps: int, guidance: float, **seconds: list[float]) -> Timing:
    made = Timing(System(label, NovelViewPipeline(None), steps, all_steps), seconds=seconds)
    made.settings = {"steps": steps, "guidance_scale": guidance}
    return made


def test_ratios_compare_repeat_by_repeat() -> None:
    """A slow moment of the machine hits both and leaves the ratio alone."""
    first = timing("a", 4, 4, 1.0, geometry=[5.0, 9.0], denoise=[1.0, 2.0], decode=[1.0, 2.0])
    other = timing("b", 8, 8, 2.0, geometry=[5.0, 9.0], denoise=[10.0, 20.0], decode=[1.0, 3.0])
    found = ratios(first, other)
    assert set(found) == {"denoise", "decode", "denoise, per step", "all but geometry", "all"}
    assert (found["denoise"].median, found["denoise"].least, found["denoise"].most) == (10, 10, 10)
    assert (found["decode"].median, found["decode"].least, found["decode"].most) == (1.25, 1.0, 1.5)
    assert found["denoise, per step"].median == 5
    assert found["all"].least == pytest.approx(16 / 7)


def test_steps_that_were_not_run_are_not_made_up() -> None:
    first = timing("a", 2, 4, 1.0, encode=[1.0], denoise=[2.0], decode=[1.0])
    other = timing("b", 2, 50, 2.0, encode=[1.0], denoise=[4.0], decode=[1.0])
    assert rows_of(other) == {"encode": [1.0], "denoise": [4.0], "decode": [1.0], "denoise, per step": [2.0]}
    assert set(ratios(first, other)) == {"encode", "decode", "denoise, per step"}


def test_floors_follow_how_often_the_networks_ran() -> None:
    made = timing("b", 5, 5, 2.0, encode=[1.0], denoise=[4.0], decode=[1.0])
    made.calls.unet_clips = 30  # three clips, five steps, two passes
    names = ("encode", "image tokens", "token keys", "UNet pass", "decode")
    works = [Work(name, n * 1e12, 0, 0) for n, name in enumerate(names, 1)]
    # Three clips, two branches: 3 x 1 + 6 x 2, 30 x 4 + 6 x 3, 3 x 5.
    assert floors(made, works, Machine("test", 1.0, 1.0)) == {"encode": 15.0, "denoise": 138.0, "decode": 15.0}


@pytest.mark.skipif(resident_bytes() is None, reason="this system does not tell")
def test_the_peak_of_memory_that_is_gone_again_is_seen() -> None:
    with ResidentPeak() as peak:
        peak.reset()
        before = peak.bytes()
        held = torch.ones(1 << 26)  # 256 MiB
        held.add_(1).sum()
        largest = held.numel() * 4 * 0.9
        for _ in range(20):
            held.mul_(1.0)
        del held
        after = peak.bytes()
    assert before is not None
    assert after is not None
    assert after - before > largest


def test_random_weights_keep_activations_ordinary() -> None:
    model = random_model(preset("mini-xs"), CPU, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.conditioner.tower.embeddings.position_ids.tolist()[0] == list(range(17))
    context, _ = model.conditioner(torch.rand(1, 3, 80, 128))
    assert 0.1 < context.float().std() < 10


def test_a_preset_is_measured_without_weights_or_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    options = ["--size", "32x32", "--denoise-steps", "2", "--repeats", "1", "--warmup", "0", "--clips", "2", "--floor"]
    assert main(["benchmark", "stages", "--preset", "mini-xs", "--random-weights", *options, "-o", str(file)]) == 0
    found, shown = json.loads(file.read_text()), capsys.readouterr().out
    student, teacher = found["systems"]
    assert (student["steps"], student["all_steps"], teacher["steps"], teacher["all_steps"]) == (2, 4, 2, 50)
    assert (student["calls"]["unet"], student["calls"]["unet_clips"]) == (2, 4)
    assert set(student["seconds"]) == {"encode", "denoise", "decode", "denoise, per step"}
    assert found["hardware"]["threads"] == torch.get_num_threads()
    assert "2 of 50 steps" in shown
    assert "| denoise, per step |" in shown


def test_counting_prints_a_table_and_writes_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "count.json"
    options = ["--frames", "4", "--size", "32x32", "--tflops", "1", "--gbytes-per-s", "10", "-o", str(file)]
    assert main(["benchmark", "count", "--preset", "mini-xs", *options]) == 0
    rows = json.loads(file.read_text())["stages"]
    expected = count_model(preset("mini-xs"), 4, (32, 32))
    assert [row["flop"] for row in rows[:5]] == [work.flop for work in expected]
    assert [row["stage"] for row in rows[5:]] == ["plane sweep, one photo", "splat, one frame", "look-up, one frame"]
    assert rows[3]["floor"]["seconds"] == max(expected[3].flop / 1e12, expected[3].bytes / 10e9)
    assert "| UNet pass |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stages", "--preset", "mini-xs"], "add --random-weights"),
        (["stages", "--random-weights"], "go with --preset"),
        (["stages", "--preset", "nothing", "--random-weights"], "there is no preset 'nothing'"),
        (["stages", "--preset", "mini-xs", "--random-weights", "--size", "33x32"], "multiples of 16"),
        (["stages", "--models", "none"], "no stages of a model"),
        (["stages", "--models", "mini:2000"], "choose 1 to 1000 steps"),
        (["stages", "--repeats", "0"], "at least 1"),
        (["stages", "-o", "no-such-folder/x.json"], "in a folder that exists"),
        (["count", "--model", "no-such-model"], "neither one of the package"),
        (["count", "--preset", "mini", "--size", "100x100"], "multiples of 16"),
        (["count", "--tflops", "3"], "both above 0"),
        (["count", "--machine", "pdp-11"], "choose this, h100, h200"),
        (["count", "--photos", "1"], "at least 2"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_model_named_twice_is_loaded_once() -> None:
    first, second, own = load_systems(("mini:4", "mini:2", "mini"), "cpu", "float32")
    assert first.pipeline is second.pipeline is own.pipeline
    assert (first.label, second.steps, own.steps) == ("mini 4", 2, 4)


@pytest.mark.parametrize(("name", "dtype"), [("mini", torch.float32), ("viewcrafter-512-16", torch.bfloat16)])
def test_the_tables_in_the_docs_are_those_of_the_code(name: str, dtype: torch.dtype, mini: list[Work]) -> None:
    """To update: paste what `fvgen benchmark count --preset NAME --dtype DTYPE` prints."""
    works = mini if name == "mini" else count_all(None, name, None, None, dtype, 5, 128)[0]
    assert work_table(works) in DOCS.read_text(encoding="utf-8")
    if name == "viewcrafter-512-16":
        keys, one_pass = works[2:4]
        assert keys.parameters + one_pass.parameters == 1_438_854_980
        assert 12.6e12 < one_pass.flop < 12.7e12
