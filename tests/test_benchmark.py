"""What is counted is what runs, work stays what it was, and figures are put together right. No timing is asserted."""

import json
import re
import shlex
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from fvgen.cli.main import main
from fvgen.evaluation.benchmark.clock import StageClock, resident_bytes, resident_peak
from fvgen.evaluation.benchmark.count import PeakMemory, count_model, flop_counter
from fvgen.evaluation.benchmark.report import ratios, result, rows_of, table
from fvgen.evaluation.benchmark.stages import measure_generation
from fvgen.evaluation.benchmark.systems import System, load_systems, made_up_photos, parse_way, random_model
from fvgen.models import VideoModel
from fvgen.models.model import SamplingConfig
from fvgen.models.presets import preset
from fvgen.models.sampling import sample_latents
from fvgen.models.speed import Speed
from fvgen.outputs import write_files
from fvgen.pipeline import NovelViewPipeline
from fvgen.scene.types import Photos

REPOSITORY = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")

# The guard against accidental extra work, the same on every machine: GFLOP of `mini`'s stages for one clip. A change
# that means to alter them updates them from `fvgen benchmark count`; fewer is a gain to be noted, more needs a reason.
PINNED = {"encode": 45.867, "denoise, per step": 72.099, "decode": 117.210}


def test_no_stage_of_mini_does_more_than_it_did() -> None:
    config = preset("mini")
    works = count_model(config, config.frames, (config.width, config.height), steps=4)
    assert {stage: works[stage]["flop"] / 1e9 for stage in PINNED} == pytest.approx(PINNED, rel=1e-4)
    assert works["all"]["flop"] / 1e9 == pytest.approx(45.874 + 4 * 72.099 + 117.210, rel=1e-4)


def test_the_original_network_has_the_published_size() -> None:
    config = preset("viewcrafter-512-16")
    step = count_model(config, 16, (512, 320), torch.bfloat16)["denoise, per step"]
    assert step["parameters"] == 1_438_854_980
    assert step["weights"] == 2 * step["parameters"]
    assert 12.6e12 < step["flop"] < 12.7e12


def test_a_generation_calls_the_networks_as_often_as_its_steps_say() -> None:
    """One pass per window and step, two with guidance; the decoder for clip and guide."""
    config = preset("mini-xs")
    student, teacher = load_systems(("student", "teacher"), ("plain",), "cpu", "float32", "mini-xs")
    guided = replace(config.sampling, guidance_scale=2.0)
    teacher.model.config = replace(config, sampling=guided)
    teacher = replace(teacher, steps=3, all_steps=3)
    photos = made_up_photos(3, 96, 64)
    few, many = student, teacher
    measure_generation(photos, [few, many], write_files, repeats=1, warmup=0, size=(64, 48))
    assert few.settings["frames"] == 15  # two windows of eight share a photo
    assert (few.calls["unet"], few.calls["unet_clips"]) == (8, 8)
    assert (many.calls["unet"], many.calls["unet_clips"]) == (12, 12)
    for timing in (few, many):
        assert (timing.calls["encode"], timing.calls["encode_frames"]) == (2, 16)
        assert (timing.calls["decode"], timing.calls["decode_frames"]) == (4, 24)  # photographs are not decoded
        assert list(rows_of(timing)) == [
            *("geometry", "render", "encode", "denoise", "decode", "compose", "write"),
            *("denoise, per step", "all but geometry", "all"),
        ]
        assert all(seconds[0] > 0 for seconds in rows_of(timing).values())
        if resident_bytes():
            assert set(timing.resident) == {"geometry", "render", "encode", "denoise", "decode", "compose", "write"}
            assert min(timing.resident.values()) > 50e6  # the interpreter and PyTorch
    assert few.seconds["geometry"] == many.seconds["geometry"]
    found = result([few, many], {"dtype": "float32"})
    assert json.loads(json.dumps(found)) == found
    assert len(table(found).splitlines()) == 2 + 10


@pytest.mark.parametrize("guided", [False, True])
def test_what_is_counted_is_what_runs(guided: bool) -> None:
    """On tensors without memory the same operations are dispatched as on real ones."""
    config = preset("mini-xs")
    counted = count_model(config, 4, (32, 32), steps=3, guided=guided)
    model = random_model(config, CPU, torch.float32)
    clip, coverage = torch.rand(1, 4, 3, 32, 32), torch.ones(1, 4, 32, 32, dtype=torch.bool)
    noise = torch.randn(model.latent_shape(clip))
    scale = 2.0 if guided else 1.0
    with torch.no_grad(), flop_counter() as counter:
        condition = model.condition(clip, coverage, clip[:, 0], guided=guided)
        latents = sample_latents(model, condition, noise, 3, scale)
        made = model.decode(latents, condition.concat, clip, torch.arange(4))
    assert counter.get_total_flops() == counted["all"]["flop"]
    with torch.no_grad(), PeakMemory() as memory:
        model.decode(latents, condition.concat, clip, torch.arange(4))
    assert memory.peak == pytest.approx(counted["decode"]["activations"], rel=0.02)
    assert made.isfinite().all()


def test_each_stage_counts_the_weights_that_lie_there_when_off_loaded() -> None:
    counted = count_model(preset("mini-xs"), 4, (32, 32), torch.bfloat16, clips=2)
    parts = VideoModel.build(preset("mini-xs"), device="meta").components()
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert {stage: work["parameters"] for stage, work in counted.items()} == {
        "encode": sizes["vae"] + sizes["conditioner"],
        "denoise, per step": sizes["unet"],
        "decode": sizes["vae"],
        "all": sum(sizes.values()),
    }
    assert all(work["weights"] == 2 * work["parameters"] for work in counted.values())


class Known(nn.Module):
    """A convolution, a linear layer and attention of four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 3 * 64)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.linear(self.convolution(images).flatten(2).transpose(1, 2))
        query, key, value = (x.unflatten(-1, (4, 16)).transpose(1, 2) for x in tokens.chunk(3, dim=-1))
        return F.scaled_dot_product_attention(query, key, value)


@pytest.mark.parametrize("fake", [False, True])
def test_operations_are_counted_by_the_book(fake: bool) -> None:
    tokens = 7 * 9
    convolution, linear = 2 * (2 * 8 * tokens) * 3 * 9, 2 * (2 * tokens) * 8 * 3 * 64
    attention = 2 * (2 * 2 * 4 * tokens * tokens * 16)  # two products, two pictures, four heads
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext(), torch.no_grad():
        network, images = Known(), torch.zeros(2, 3, 7, 9)
        with flop_counter() as counter:
            network(images)
    assert counter.get_total_flops() == convolution + linear + attention


def test_attention_backwards_does_two_and_a_half_times_the_work() -> None:
    """Forward two products of ``[L, D]`` and ``[L, L]``; backward the first again, and two for each of them."""
    query, key, value = (torch.randn(2, 3, 8, 16, requires_grad=True) for _ in range(3))
    with flop_counter() as counter:
        torch.nn.functional.scaled_dot_product_attention(query, key, value).sum().backward()
    product = 2 * (2 * 3) * 8 * 8 * 16
    assert counter.get_total_flops() == 2 * product + 5 * product


def timing(label: str, steps: int, all_steps: int, **seconds: list[float]) -> System:
    return System(label, NovelViewPipeline(None), steps, all_steps, seconds=seconds)


def test_ratios_compare_repeat_by_repeat() -> None:
    """A slow moment of the machine hits both and leaves the ratio alone."""
    first = timing("a", 4, 4, geometry=[5.0, 9.0], denoise=[1.0, 2.0], decode=[1.0, 2.0])
    other = timing("b", 8, 8, geometry=[5.0, 9.0], denoise=[10.0, 20.0], decode=[1.0, 3.0])
    found = ratios(first, other)
    assert set(found) == {"denoise", "decode", "denoise, per step", "all but geometry", "all"}
    assert found["denoise"] == [10, 10]
    assert found["decode"] == [1.0, 1.5]
    assert found["denoise, per step"] == [5, 5]
    assert min(found["all"]) == pytest.approx(16 / 7)


def test_steps_that_were_not_run_are_not_made_up() -> None:
    first = timing("a", 2, 4, encode=[1.0], denoise=[2.0], decode=[1.0])
    other = timing("b", 2, 50, encode=[1.0], denoise=[4.0], decode=[1.0])
    assert rows_of(other) == {"encode": [1.0], "denoise": [4.0], "decode": [1.0], "denoise, per step": [2.0]}
    assert set(ratios(first, other)) == {"encode", "decode", "denoise, per step"}


@pytest.mark.skipif(not resident_bytes(), reason="this system does not tell")
def test_the_peak_of_memory_that_is_gone_again_is_seen() -> None:
    before = resident_bytes()
    with resident_peak() as seen:
        held = torch.ones(1 << 26)  # 256 MiB
        held.add_(1).sum()
        largest = held.numel() * 4 * 0.9
        for _ in range(20):
            held.mul_(1.0)
        del held
    assert max(seen) - before > largest


def test_random_weights_keep_activations_ordinary() -> None:
    model = random_model(preset("mini-xs"), CPU, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.conditioner.tower.embeddings.position_ids.tolist()[0] == list(range(17))
    context, _ = model.conditioner(torch.rand(1, 3, 80, 128))
    assert 0.1 < context.float().std() < 10


def test_a_preset_is_measured_without_weights_or_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    options = ["--size", "32x32", "--denoise-steps", "2", "--repeats", "1", "--warmup", "0", "--clips", "2"]
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
    options = ["--frames", "4", "--size", "32x32", "--clips", "2", "--steps", "3", "--guidance-scale", "2"]
    assert main(["benchmark", "count", "--preset", "mini-xs", *options, "-o", str(file)]) == 0
    found, shown = json.loads(file.read_text()), capsys.readouterr().out
    works = count_model(preset("mini-xs"), 4, (32, 32), clips=2, steps=3, guided=True)
    assert found["stages"] == works
    assert found["peak_bytes"] == works["all"]["weights"] + works["all"]["activations"]
    assert found["peak_bytes_offloaded"] < found["peak_bytes"]
    assert "| denoise, per step |" in shown


def test_every_way_of_running_a_model_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that `fvgen generate` lets one choose."""
    file, ways = tmp_path / "figures.json", ["plain", "bfloat16", "window-batch=1", "offload+channels-last"]
    shape = ["--preset", "mini-xs", "--random-weights", "--size", "32x32", "--clips", "2", "--models", "student:2"]
    options = [*shape, "--ways", *ways, "--repeats", "2", "--warmup", "0", "--device", "cpu", "-o", str(file)]
    assert main(["benchmark", "stages", *options]) == 0
    found, shown = json.loads(file.read_text()), capsys.readouterr().out
    names = ["mini-xs, student 2", *(f"mini-xs, student 2, {way}" for way in ways[1:])]
    assert [system["system"] for system in found["systems"]] == names
    assert [ratio["of"] for ratio in found["ratios"]] == names[1:]
    assert [system["calls"]["unet"] for system in found["systems"]] == [2, 2, 4, 2]
    assert [system["dtype"] for system in found["systems"]] == ["float32", "bfloat16", "float32", "float32"]
    assert found["systems"][3]["offload"]
    assert all(len(system["seconds"]["denoise"]["all"]) == 2 for system in found["systems"])
    assert f"| {names[1]} / {names[0]} |" in shown


def test_a_way_is_said_in_words() -> None:
    both = Speed(compile=True, channels_last=True)
    assert parse_way("plain", Speed(), "auto") == (Speed(), "auto")
    assert parse_way("compile+channels-last", Speed(window_batch=2), "auto")[0] == replace(both, window_batch=2)
    assert parse_way("float16+offload+window-batch=3", Speed(), "auto") == (Speed(False, False, True, 3), "float16")


def test_what_other_models_hold_on_a_gpu_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _: 1000)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda _: 5000)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda _: None)
    clock = StageClock(torch.device("cuda", 0), nn.Linear(1, 1))  # its weights are elsewhere
    with clock.stage("denoise"):
        pass
    assert clock.gpu == {"denoise": 4000}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stages", "--preset", "mini-xs"], "add --random-weights"),
        (["stages", "--random-weights"], "go with --preset"),
        (["stages", "--preset", "nothing", "--random-weights"], "there is no preset 'nothing'"),
        (["stages", "--preset", "mini-xs", "--random-weights", "--size", "33x32"], "multiples of 16"),
        (["stages", "--models", "none"], "no stages of a model"),
        (["stages", "--models", "mini:2000"], "choose 1 to 1000 steps"),
        (["stages", "--models", "mini", "--ways", "plain", "warp"], "warp"),
        (["stages", "--repeats", "0"], "at least 1"),
        (["stages", "-o", "/proc/x.json"], "--output /proc/x.json: cannot be written (no such file or directory)"),
        (["stages", "--ways", "faster"], "choose from plain, compile"),
        (["stages", "--ways", "window-batch=0"], "choose from plain, compile"),
        (["stages", "--preset", "mini-xs", "--random-weights", "--models", "mini"], "there are student and teacher"),
        (["count", "no-such-model"], "neither one of the package"),
        (["count", "mini", "--preset", "mini"], "name one of them"),
        (["count", "--preset", "mini", "--size", "100x100"], "multiples of 16"),
        (["count", "--clips", "0"], "at least 1"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_model_named_twice_is_loaded_once() -> None:
    first, second, own = load_systems(("mini:4", "mini:2", "mini"), ("plain",), "cpu", "float32")
    assert first.pipeline is second.pipeline is own.pipeline
    assert (first.label, second.steps, own.steps) == ("mini 4", 2, 4)


def documented(page: str) -> list[str]:
    """Every command of ours that a page shows, without the remark behind it."""
    blocks = re.findall(r"```\n(.*?)```", (REPOSITORY / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.partition("  #")[0] for line in lines if line.startswith("fvgen benchmark ")]


COMMANDS = [*documented("benchmark.md"), *documented("speed.md")]
SMALL = {"viewcrafter-512-16": "mini-xs", "cuda": "cpu", "mini-teacher:50": "mini-teacher:2"}


def in_small(words: list[str], folder: Path) -> list[str]:
    """The same options, for networks and pictures that take no time."""
    words = [SMALL.get(word, word) for word in words]
    words = [str(folder / word) if word.endswith((".json", "photos/")) else word for word in words]
    small = {"--size": "64x48", "--repeats": "1", "--warmup": "0"} if "stages" in words else {}
    small |= {"--denoise-steps": "1"} if "stages" in words and "--preset" in words else {}
    for option, value in small.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return words


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models under the names of the package's."""
    folder, few = tmp_path_factory.mktemp("tiny"), SamplingConfig(steps=4, guidance_scale=1.0, few_step=True)
    for name, sampling in (("mini", few), ("mini-teacher", SamplingConfig(steps=2))):
        random_model(replace(preset("mini-xs"), sampling=sampling), CPU, torch.float32).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def two_photos() -> Photos:
    return made_up_photos(2, 96, 64)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Path, two_photos: Photos) -> Path:
    """A folder to write in, where photographs and models are small, and the compiler does nothing."""
    monkeypatch.setattr("fvgen.models.model.WEIGHTS", tiny)
    monkeypatch.setattr("fvgen.scene.photos.load_photos", lambda *_, **__: two_photos)
    monkeypatch.setattr("fvgen.evaluation.benchmark.systems.default_photos", lambda: (two_photos, "made up"))
    monkeypatch.setattr("fvgen.models.speed.compile_unet", lambda unet, **_: None)
    (tmp_path / "photos").mkdir()
    return tmp_path


def test_the_pages_show_every_command() -> None:
    assert {line.split()[2] for line in COMMANDS} == {"stages", "count"}
    assert len(COMMANDS) > 6


@pytest.mark.parametrize("line", dict.fromkeys(COMMANDS))
def test_documented_commands_run(line: str, quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(in_small(shlex.split(line)[1:], quick)) == 0
    assert "| denoise, per step |" in capsys.readouterr().out


def test_the_script_for_a_gpu_goes_on_where_it_stopped(quick: Path) -> None:
    """Its commands run; one that failed is tried again, the others are not."""
    noted, stub = quick / "commands", quick / "stub"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {noted}\ncase "$*" in *"--clips 4"*) exit 1;; esac\necho table\n')
    stub.chmod(0o755)

    def commands() -> list[list[str]]:
        noted.unlink(missing_ok=True)
        script = str(REPOSITORY / "scripts" / "gpu_speed.sh")
        subprocess.run(["sh", script, str(quick / "out"), str(stub)], check=True, capture_output=True)
        return [line.split() for line in noted.read_text().splitlines()]

    every: list[list[str]] = commands()
    assert len(every) == 8
    again = commands()
    assert len(again) == 2
    assert all(words[words.index("--clips") + 1] == "4" for words in again)
    for words in every:
        assert words[:3] == ["-m", "fvgen", "benchmark"]
        assert "viewcrafter-512-16" in words
        assert main([*in_small(words[2:-2], quick), "-o", str(quick / "figures.json")]) == 0
        found: dict[str, Any] = json.loads((quick / "figures.json").read_text())
        assert "stages" in found or all(system["all_steps"] in (4, 50) for system in found["systems"])


def test_the_script_for_a_gpu_measures_all_that_can_be_chosen() -> None:
    text = (REPOSITORY / "scripts" / "gpu_speed.sh").read_text()
    for choice in ("float32", "channels-last", "compile", "offload", "window-batch=1", "student teacher"):
        assert choice in text
