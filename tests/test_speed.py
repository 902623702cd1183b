"""The fast ways of running a model give what the plain way gives, and do what they promise: no figure is a timing."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from fvgen.evaluation.benchmark.calls import counted_calls
from fvgen.evaluation.benchmark.counting import OperationCounter
from fvgen.evaluation.benchmark.random_model import random_model
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


def windows(count: int) -> Windows:
    """The first windows of a made-up scene; the first and the last frame of each are photographs."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(4, FRAMES, HEIGHT, WIDTH, 3, generator=generator)[:count]
    coverage = torch.rand(4, FRAMES, HEIGHT, WIDTH, generator=generator)[:count] < 0.7
    wanted = torch.ones(count, FRAMES, dtype=torch.bool)
    wanted[:, [0, -1]] = False
    return Windows(pictures, coverage, wanted, [torch.Generator().manual_seed(i) for i in range(count)])


def made(model: VideoModel, count: int, speed: Speed = Speed(), guidance: float = 1.0) -> Tensor:  # noqa: B008
    """``[count, wanted, H, W, 3]``."""
    sampler = WindowSampler(model, speed, CPU, 4, guidance)
    with torch.no_grad():
        parts = list(sampler.run(windows(count), lambda _: nullcontext()))
    assert [i for batch, _ in parts for i in batch] == list(range(count))
    return torch.cat([frames for _, frames in parts]).unflatten(0, (count, -1))


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
    assert calls.unet_clips == 3 * 4
    assert calls.decode_frames == 2 * 3 * (FRAMES - 2)  # of the clip and of its guide


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
        prepared = model.denoiser.prepared(condition)
        t = torch.tensor([749, 20])
        with OperationCounter() as plain:
            expected = model.denoiser.velocity(x_t, t, condition)
        with OperationCounter() as cached:
            found = model.denoiser.velocity(x_t, t, prepared)
        attention = model.denoiser.unet.middle.first.spatial.block.attn2
        tokens = model.denoiser.unet.split_context(context, FRAMES)
        each = type(tokens)(*(v.repeat_interleave(2 * FRAMES // len(v), dim=0) for v in tokens))
        x = torch.randn(2 * FRAMES, 6, 32, generator=generator)
        torch.testing.assert_close(attention(x, tokens), attention(x, each), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert expected.std() > 0.1
    transformers = sum(keys is not None for keys in prepared.keys or ())
    products = [
        sum(counter.by_operation.get(f"aten.{name}", 0) for name in ("mm", "bmm")) for counter in (plain, cached)
    ]
    assert products[0] - products[1] == 4 * transformers
    assert plain.flop > cached.flop


def test_without_guidance_nothing_is_made_of_a_grey_picture(fresh: VideoModel) -> None:
    looks = []
    fresh.conditioner.tower.register_forward_hook(lambda *_: looks.append(1))
    made(fresh, 2)
    assert len(looks) == 1
    made(fresh, 2, guidance=2.0)
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
    assert (calls.unet, calls.unet_clips) == (8, 16)
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
    with torch.no_grad():
        found = torch.cat([frames for _, frames in sampler.run(windows(3), lambda _: nullcontext())])
    torch.testing.assert_close(found, expected.flatten(0, 1), atol=0, rtol=0)
    assert ran[:12] == [{"unet"}] * 12  # three windows, four steps each, and nothing else on the device
    assert all(here == {"vae"} for here in ran[12:])
    assert moves.count("unet") == 2
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
    assert windows_at_once(model, Speed(), 16, (256, 160), CPU) == 4
    assert windows_at_once(model, Speed(), 16, (512, 320), CPU) == 1


def test_noise_of_each_window_is_its_own(model: VideoModel) -> None:
    """Also that between the steps."""
    condition = Condition(torch.zeros(2, 13, 2, 8, 8), torch.zeros(2, 8, 64), None)
    start = torch.zeros(2, 12, 2, 8, 8)

    def sampled(seeds: list[int]) -> Tensor:
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        rows = slice(0, len(seeds))
        return sample_latents(model, condition.select(rows), start[rows], 4, 1.0, sources)

    pair = sampled([3, 5])
    torch.testing.assert_close(pair[:1], sampled([3]), atol=1e-5, rtol=0)
    assert (pair[0] - pair[1]).abs().mean() > 0.01


def test_weights_are_read_into_their_number_format() -> None:
    full, half = VideoModel.load("mini"), VideoModel.load("mini", "cpu", torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    for name, value in half.state_dict().items():
        assert torch.equal(value, full.state_dict()[name].to(value.dtype)), name
    assert half.conditioner.tower.embeddings.position_ids.dtype == torch.int64
