"""The fast ways of running a model give what the plain way gives, and do what they promise: no figure is a timing."""

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from fvgen.cli.main import main
from fvgen.evaluation.benchmark.count import PeakMemory, count_model, flop_counter
from fvgen.evaluation.benchmark.stages import counted_calls
from fvgen.evaluation.benchmark.systems import made_up_photos, random_model
from fvgen.models import Condition, VideoModel, preset
from fvgen.models.model import SamplingConfig
from fvgen.models.sampling import sample_latents
from fvgen.models.speed import (
    Speed,
    compile_unet,
    equal_batches,
    on_device,
    prepare,
    window_bytes,
    windows_at_once,
)
from fvgen.models.windows import Windows, WindowSampler
from fvgen.outputs import write_files
from fvgen.pipeline import Clock, NovelViewPipeline, plan_path
from fvgen.scene.build import build_scene
from fvgen.scene.formats.images import PngWriter

DOCS = Path(__file__).resolve().parent.parent / "docs" / "speed.md"
SCRIPT = DOCS.parent.parent / "scripts" / "gpu_speed.sh"
CPU = torch.device("cpu")
FRAMES, HEIGHT, WIDTH = 4, 32, 48


@pytest.fixture(scope="module")
def model() -> VideoModel:
    """A small student whose every layer does something."""
    few = SamplingConfig(steps=4, guidance_scale=1.0, few_step=True)
    return random_model(replace(preset("mini-xs"), sampling=few), CPU, torch.float32)


@pytest.fixture
def fresh(model: VideoModel) -> VideoModel:
    """One that a test may change."""
    return copy.deepcopy(model)


def windows(chosen: list[int]) -> Windows:
    """Windows of a made-up scene; the first and the last frame of each are photographs."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(4, FRAMES, HEIGHT, WIDTH, 3, generator=generator)[chosen]
    coverage = torch.rand(4, FRAMES, HEIGHT, WIDTH, generator=generator)[chosen] < 0.7
    wanted = torch.ones(len(chosen), FRAMES, dtype=torch.bool)
    wanted[:, [0, -1]] = False
    return Windows(pictures, coverage, wanted, [torch.Generator().manual_seed(i) for i in chosen])


def run(sampler: WindowSampler, count: int) -> Tensor:
    """The first windows, in groups of batches as the pipeline runs them: the wanted frames ``[F, H, W, 3]``."""
    groups = sampler.groups(count, FRAMES, (WIDTH, HEIGHT))
    assert [i for group in groups for batch in group for i in batch] == list(range(count))
    with torch.no_grad():
        parts = [
            sampler.run([windows(b) for b in group], len(groups[0][0]), lambda _: nullcontext()) for group in groups
        ]
    return torch.cat([frames for part in parts for frames in part])


def made(model: VideoModel, count: int, speed: Speed = Speed(), guidance: float = 1.0) -> Tensor:  # noqa: B008
    """``[count, wanted, H, W, 3]``."""
    return run(WindowSampler(model, speed, CPU, 4, guidance), count).unflatten(0, (count, -1))


def test_a_window_is_the_same_whatever_is_denoised_with_it(model: VideoModel) -> None:
    together = made(model, 3, Speed(window_batch=3))
    assert together.std() > 0.05
    for most in (1, 2):
        torch.testing.assert_close(made(model, 3, Speed(window_batch=most)), together, atol=2e-5, rtol=0)
    torch.testing.assert_close(made(model, 1), together[:1], atol=2e-5, rtol=0)
    assert (together[0] - together[1]).abs().mean() > 0.01


def test_only_frames_that_are_wanted_are_decoded(model: VideoModel) -> None:
    with counted_calls(model) as calls:
        assert made(model, 3, Speed(window_batch=2)).shape[:2] == (3, FRAMES - 2)
    assert calls["unet_clips"] == 3 * 4
    assert calls["decode_frames"] == 2 * 3 * (FRAMES - 2)  # of the clip and of its guide


@pytest.mark.parametrize("per_frame", [False, True])
def test_keys_made_once_give_the_same_velocity_with_fewer_operations(per_frame: bool) -> None:
    """Against tokens repeated for every frame, one frame at a time, as the original teacher computes it."""
    config = preset("mini-xs")
    unet = replace(config.unet, per_frame_image_tokens=per_frame, tokens_per_frame=1)
    model = random_model(replace(config, unet=unet), CPU, torch.float32)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(2, 12, FRAMES, 8, 12, generator=generator)
    context = torch.randn(2, 4 + FRAMES, 64, generator=generator)
    condition = Condition(torch.randn(2, 13, FRAMES, 8, 12, generator=generator), context, None)
    with torch.no_grad():
        with flop_counter() as preparing:
            prepared = model.denoiser.prepared(condition)
        t = torch.tensor([749, 20])
        with flop_counter() as plain:
            expected = model.denoiser.velocity(x_t, t, condition)
        with flop_counter() as cached:
            found = model.denoiser.velocity(x_t, t, prepared)
        attention = model.denoiser.unet.middle.first.spatial.block.attn2
        tokens = model.denoiser.unet.split_context(context, FRAMES)
        each = type(tokens)(*(v.repeat_interleave(2 * FRAMES // len(v), dim=0) for v in tokens))
        x = torch.randn(2 * FRAMES, 6, 32, generator=generator)
        torch.testing.assert_close(attention(x, tokens), attention(x, each), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert expected.std() > 0.1
    saved = plain.get_total_flops() - cached.get_total_flops()
    assert saved == preparing.get_total_flops() > 0


def test_without_guidance_nothing_is_made_of_a_grey_picture(fresh: VideoModel) -> None:
    looks = []
    fresh.conditioner.tower.register_forward_hook(lambda *_: looks.append(1))
    made(fresh, 1)
    assert len(looks) == 1
    made(fresh, 1, guidance=2.0)
    assert len(looks) == 3
    with pytest.raises(ValueError, match="without guidance"):
        fresh.denoiser.drop(Condition(torch.zeros(1), torch.zeros(1), None))


def test_four_steps_and_all_batches_are_one_compilation(fresh: VideoModel) -> None:
    """Also the last batch, which has fewer windows; counted by a backend that runs the graph as it was captured."""
    expected, counter = made(fresh, 3), CompileCounter()
    torch._dynamo.reset()
    compile_unet(fresh.denoiser.unet, backend=counter)
    with counted_calls(fresh) as calls:  # hooks still run
        found = made(fresh, 3, Speed(compile=True, window_batch=2))
    assert (calls["unet"], calls["unet_clips"]) == (8, 16)
    assert counter.frame_count == 1  # one graph, no break in it, captured once
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    made(fresh, 4, Speed(compile=True, window_batch=2), guidance=2.0)
    assert counter.frame_count == 1
    made(fresh, 1, Speed(compile=True))
    assert counter.frame_count == 2  # another shape is another graph
    torch._dynamo.reset()


@pytest.mark.slow
def test_the_compiled_network_is_the_network(fresh: VideoModel) -> None:
    """By the compiler that is really used, which needs a C++ compiler on CPUs."""
    expected = made(fresh, 3)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    speed = Speed(compile=True, window_batch=2)
    prepare(fresh, speed, CPU)
    prepare(fresh, speed, CPU)  # once is enough
    torch.testing.assert_close(made(fresh, 3, speed), expected, atol=1e-4, rtol=0)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    prepare(fresh, Speed(), CPU)
    torch.testing.assert_close(made(fresh, 3), expected, atol=0, rtol=0)


def test_channels_last_is_the_same_picture(fresh: VideoModel) -> None:
    expected = made(fresh, 2)
    prepare(fresh, Speed(channels_last=True), CPU)
    assert fresh.denoiser.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made(fresh, 2), expected, atol=2e-5, rtol=0)
    prepare(fresh, Speed(), CPU)
    assert fresh.denoiser.unet.conv_in.weight.is_contiguous()
    torch.testing.assert_close(made(fresh, 2), expected, atol=0, rtol=0)


def test_half_precision_stays_near(model: VideoModel, fresh: VideoModel) -> None:
    """Guide and pictures stay in float32 around the networks: what these leave alone loses nothing."""
    expected, found = made(model, 2), made(fresh.to(torch.bfloat16), 2)
    assert found.dtype == torch.float32
    error = (found - expected).square().mean(dim=(2, 3, 4))
    assert -10 * error.max().log10() > 25


class Watched(nn.Module):
    """Notes where it is sent and when it runs."""

    def __init__(self, name: str, seen: list[str]) -> None:
        super().__init__()
        self.name, self.seen = name, seen
        self.weight = nn.Parameter(torch.zeros(1))

    def to(self, *args: object, **kwargs: object) -> "Watched":
        self.seen.append(f"{self.name} to {args[0]}")
        return super().to(*args, **kwargs)


def test_parts_are_brought_and_taken_away_again() -> None:
    seen: list[str] = []
    one, two = Watched("one", seen), Watched("two", seen)
    with on_device(torch.device("meta"), one, two):
        assert one.weight.device.type == "meta"
        seen.append("work")
        two.weight = nn.Parameter(torch.zeros(1))  # meta holds no numbers to bring back
        one.weight = nn.Parameter(torch.zeros(1))
    assert seen == ["one to meta", "two to meta", "work", "one to cpu", "two to cpu"]
    with pytest.raises(RuntimeError), on_device(CPU, one):
        raise RuntimeError
    assert seen[-1] == "one to cpu"
    with on_device(torch.device("meta"), one, offload=False):
        assert one.weight.device.type == "cpu"


def test_off_loaded_each_part_comes_once_for_all_windows(fresh: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = made(fresh, 3, Speed(window_batch=1))
    parts = {id(fresh.autoencoder): "vae", id(fresh.conditioner): "tokens", id(fresh.denoiser): "unet"}
    present: set[str] = set()
    most: list[set[str]] = []
    moves: list[str] = []
    device = torch.device("cpu", 0)  # the same memory under another name: what is here and what is away is told apart

    real = nn.Module.to

    def to(module: nn.Module, *args: object, **kwargs: object) -> nn.Module:
        if id(module) in parts:
            name = parts[id(module)]
            moves.append(name)
            (present.add if args[0] == device else present.discard)(name)
            most.append(set(present))
        return real(module, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "to", to)
    ran: list[set[str]] = []
    fresh.denoiser.unet.register_forward_pre_hook(lambda *_: ran.append(set(present)))
    fresh.autoencoder.vae.decoder.register_forward_pre_hook(lambda *_: ran.append(set(present)))
    sampler = WindowSampler(fresh, Speed(offload=True, window_batch=1), device, 4, 1.0)
    found = run(sampler, 3)
    torch.testing.assert_close(found, expected.flatten(0, 1), atol=0, rtol=0)
    assert ran[:12] == [{"unet"}] * 12  # three windows, four steps each, and nothing else on the device
    assert all(here == {"vae"} for here in ran[12:])
    assert [moves.count(name) for name in ("unet", "tokens", "vae")] == [2, 2, 4]  # there and back again
    assert not present


def test_batches_are_as_few_and_as_equal_as_can_be() -> None:
    assert [len(b) for b in equal_batches(7, 3)] == [3, 3, 1]
    assert [len(b) for b in equal_batches(8, 6)] == [4, 4]
    assert [len(b) for b in equal_batches(4, 100)] == [4]
    assert [i for b in equal_batches(11, 4) for i in b] == list(range(11))


def test_the_batch_follows_the_free_memory(model: VideoModel) -> None:
    size, frames = (WIDTH, HEIGHT), FRAMES
    one = window_bytes(model.config, frames, size, torch.float32)
    ask = [(Speed(), int(one * 10)), (Speed(), int(one * 100)), (Speed(), 0), (Speed(window_batch=3), 0)]
    assert [windows_at_once(model, speed, frames, size, CPU, free) for speed, free in ask] == [9, 90, 1, 3]
    weights = sum(p.numel() * 4 for p in model.denoiser.unet.parameters())
    assert windows_at_once(model, Speed(offload=True), frames, size, CPU, weights + int(one * 10)) == 9
    assert windows_at_once(model, Speed(), 16, (256, 160), CPU) == 1


def test_noise_of_each_window_is_its_own(model: VideoModel) -> None:
    """Also that between the steps."""
    condition = Condition(torch.zeros(2, 13, 2, 8, 8), torch.zeros(2, 8, 64), None)
    start = torch.zeros(2, 12, 2, 8, 8)

    def sampled(seeds: list[int]) -> Tensor:
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        rows = slice(0, len(seeds))
        return sample_latents(
            model, Condition(condition.concat[rows], condition.context[rows], None), start[rows], 4, 1.0, sources
        )

    pair = sampled([3, 5])
    torch.testing.assert_close(pair[:1], sampled([3]), atol=1e-5, rtol=0)
    assert (pair[0] - pair[1]).abs().mean() > 0.01


def test_weights_are_read_into_their_number_format(tmp_path: Path) -> None:
    full, half = VideoModel.load("mini"), VideoModel.load("mini", "cpu", torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    for name, value in half.state_dict().items():
        assert torch.equal(value, full.state_dict()[name].to(value.dtype)), name
    VideoModel.build(preset("mini-xs")).save(tmp_path / "with a tower")
    tower = VideoModel.load(tmp_path / "with a tower", "cpu", torch.bfloat16).conditioner.tower
    assert tower.embeddings.position_ids.dtype == torch.int64


def test_a_model_is_never_twice_in_memory_while_it_is_read() -> None:
    with PeakMemory() as straight:
        model = VideoModel.load("mini", "cpu", torch.bfloat16)
    with PeakMemory() as around:
        VideoModel.load("mini").to(torch.bfloat16)
    size = sum(p.numel() * 2 for p in model.parameters())
    assert size <= straight.peak < 1.02 * size
    assert around.peak > 2 * size  # by way of float32


def test_memory_is_counted_by_what_exists_together() -> None:
    x = torch.zeros(1000)
    with PeakMemory() as counter:
        y = x + 1  # 4000 bytes
        z = y + 1  # both
        del y
        z = z.view(10, 100) + z.clone().view(10, 100)  # three at once
        del z
    assert counter.peak == 12000


@pytest.mark.parametrize(("name", "frames"), [("mini", 16), ("viewcrafter-512-16", 4)])
def test_a_window_needs_no_more_memory_than_the_rule_says(name: str, frames: int) -> None:
    config = preset(name)
    size = config.width, config.height
    work = count_model(config, frames, size, torch.bfloat16)["denoise, per step"]
    rule = window_bytes(config, frames, size, torch.bfloat16)
    assert 0.3 * rule < work["activations"] < 0.9 * rule


def test_frames_are_handed_out_as_soon_as_they_are_final(model: VideoModel, tmp_path: Path) -> None:
    scene = build_scene(made_up_photos(3, 96, 64))
    pipeline = NovelViewPipeline(model, "small", Speed(window_batch=1))
    path = plan_path(scene, "through", None, (64, 48), 8)
    with PngWriter(tmp_path / "images") as images:
        early: list[list[int]] = []

        def take(numbers: list[int], pictures: Tensor) -> None:
            early.append(numbers)
            images.add(numbers, pictures)

        views = pipeline(scene, path=path, callback_on_frames=take)
        write_files(views, tmp_path, images=images)
    assert early == [[0, 7], [*range(1, 7)], [14], [*range(8, 14)]]  # photographs where they are come to
    written = sorted((tmp_path / "images").iterdir())
    assert [file.name for file in written] == [f"{i:05d}.png" for i in range(15)]
    for file, frame in zip(written, views.frames):
        assert torch.equal(torch.from_numpy(np.array(Image.open(file))), frame)
    assert views.settings.speed.window_batch == 1
    assert "offload" not in views.settings.as_dict()
    pipeline.speed = Speed(window_batch=2)
    together = pipeline(scene, path=path)
    assert (together.frames.int() - views.frames.int()).abs().max() <= 1
    assert torch.equal(together.frames[[0, 7, 14]], views.frames[[0, 7, 14]])


def test_files_that_cannot_be_written_are_told_of(tmp_path: Path) -> None:
    with PngWriter(tmp_path / "images") as images:
        (tmp_path / "images" / "00001.png").mkdir()
        images.add([0, 1], torch.zeros(2, 4, 4, 3, dtype=torch.uint8))
        with pytest.raises(OSError):
            images.finish()


def test_stages_wait_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or what it was given would count for the next stage."""
    waited: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    for device in (CPU, torch.device("cuda", 0)):
        clock = Clock(device)
        with clock.stage("encode"):
            pass
        assert clock.seconds["encode"] > 0
    assert waited == [torch.device("cuda", 0)]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["generate", "a.jpg", "-o", "x", "--window-batch", "0"], "at least 1 window"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_the_example_of_the_page_is_true() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "speed.md").read_text()
    made: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], made)
    assert made["pipeline"].speed == Speed(compile=True, window_batch=2)
