"""Low-rank adapters: equal at the start, gradients to the factors alone, merged as they act, one base for all."""

import copy
import json
import runpy
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from fvgen.errors import UserError
from fvgen.evaluation.benchmark.systems import random_model
from fvgen.models import Condition, VideoModel, preset
from fvgen.models.lora import (
    Adapter,
    LowRank,
    adapted,
    fingerprint,
    low_rank_layers,
    merge,
    save_adapter,
    trainable,
)
from fvgen.models.lora_config import ALL_LAYERS, LoraConfig
from fvgen.models.unet import TimeConv
from fvgen.pipeline import NovelViewPipeline
from fvgen.training.toy import ToyDenoiser

LORA = LoraConfig(rank=3, alpha=6.0)
SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def model():
    return random_model(preset("mini-xs"), torch.device("cpu"), torch.float32)


def moved(network, seed=0):
    """With factors that say something, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in low_rank_layers(network):
            layer.up.copy_(0.05 * torch.randn(layer.up.shape, generator=generator))
    return network


def clip(model, seed=0):
    """Noised latents, their time and condition."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 12, 3, 20, 32, generator=generator)
    concat = torch.randn(1, 13, 3, 20, 32, generator=generator)
    tokens = torch.randn(1, 8, 64, generator=generator)
    return x, torch.tensor([499]), Condition(concat, tokens, None)


def storages(*modules):
    return {p.untyped_storage().data_ptr() for module in modules for p in module.parameters()}


def digest(model):
    return fingerprint(sorted(model.denoiser.state_dict().items()))


def test_an_adapted_network_starts_equal_and_holds_the_base_itself(model):
    base = model.denoiser
    before, weights = base.velocity(*clip(model)), storages(base)
    student, fake = adapted(base, LORA, 0), adapted(base, LORA, 1)
    assert type(student) is type(base)
    assert type(student.unet) is type(base.unet)
    for network in (student, fake):
        assert torch.equal(network.velocity(*clip(model)), before)
        assert storages(network) == weights | storages(trainable(network))
        assert not storages(trainable(network)) & weights
    assert not storages(trainable(student)) & storages(trainable(fake))
    assert not any(isinstance(part, LowRank) for part in base.modules())
    assert [p for p in base.parameters() if p.requires_grad] == []
    alike = adapted(base, LORA, 0)
    pairs = zip(trainable(student).parameters(), trainable(alike).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(trainable(student).parameters(), trainable(fake).parameters()))


def test_sharing_outlives_a_change_of_format(model):
    base = model.denoiser
    student = adapted(base, LORA)
    base.double()
    assert storages(student) == storages(base) | storages(trainable(student))
    assert student.unet.conv_in.weight.dtype == torch.float64


def test_every_kind_of_layer_is_chosen_alone(model):
    every = {name for name, _ in low_rank_layers(adapted(model.denoiser, LORA))}
    found = {}
    for kind in ALL_LAYERS:
        network = adapted(model.denoiser, LoraConfig(2, layers=(kind,)))
        found[kind] = {name for name, _ in low_rank_layers(network)}
    assert all(found.values())
    assert sum(map(len, found.values())) == len(every)
    assert set().union(*found.values()) == every
    layers = {n for n, m in model.denoiser.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)}
    rim = {"conv_in", "conv_out", "time_embed.linear_in", "time_embed.linear_out"}
    rim |= {"fs_embed.linear_in", "fs_embed.linear_out"}
    assert layers - every == {f"unet.{name}" for name in rim}
    assert "unet.middle.first.spatial.block.attn2.to_k_image" in found["attention"]
    assert "unet.middle.first.res.temporal.0.conv" in found["temporal"]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 5), (4, 7, 6)),
        (nn.Linear(6, 5, bias=False), (6,)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 8)),
        (nn.Conv3d(4, 6, 3, padding=1), (2, 4, 3, 5, 6)),
        (TimeConv(4, 6), (2, 4, 3, 5, 6)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_merged_layers_equal_unmerged_ones_and_factors_get_the_weights_gradient(layer, shape):
    """Of a product ``W + s up down``: ``dL/dup = s (dL/dW) down^T`` and ``dL/ddown = s up^T (dL/dW)``."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    low = LowRank(layer.requires_grad_(False), 3, 0.5, generator)
    with torch.no_grad():
        low.up.normal_(generator=generator)
    plain = low.merged()
    assert type(plain) is type(layer)
    assert not torch.equal(plain.weight, layer.weight)
    torch.testing.assert_close(low(x), plain(x), rtol=1e-5, atol=1e-5)
    low(x).square().sum().backward()
    plain.weight.requires_grad_(True)
    plain(x).square().sum().backward()
    whole = plain.weight.grad.flatten(1)
    torch.testing.assert_close(low.up.grad, 0.5 * whole @ low.down.detach().flatten(1).T, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(low.down.grad.flatten(1), 0.5 * low.up.detach().T @ whole, rtol=1e-4, atol=1e-3)
    assert layer.weight.grad is None


def test_a_convolution_over_time_is_the_one_of_three_dimensions():
    """Bit by bit the two-dimensional one that it is computed as, under the names it always had."""
    layer, x = TimeConv(4, 6), torch.randn(2, 3, 4, 5, 6).transpose(1, 2)
    same = F.conv2d(x.reshape(2, 4, 3, 30), layer.weight[..., 0], layer.bias, padding=(1, 0)).reshape(2, 6, 3, 5, 6)
    assert torch.equal(layer(x), same)
    torch.testing.assert_close(layer(x), F.conv3d(x, layer.weight, layer.bias, padding=(1, 0, 0)))
    unet = VideoModel.build(preset("mini-xs"), device="meta").denoiser.unet
    assert unet.state_dict()["encoder.0.res.temporal.2.conv.weight"].shape[2:] == (3, 1, 1)
    with pytest.raises(AttributeError):
        _ = LowRank(layer, 2, 1.0, torch.Generator()).weight


def test_a_whole_network_merges(model):
    student = moved(adapted(model.denoiser, LORA))
    before, plain = digest(model), merge(student)
    inputs = clip(model)
    assert plain.state_dict().keys() == model.denoiser.state_dict().keys()
    assert not storages(plain) & storages(student)
    torch.testing.assert_close(plain.velocity(*inputs), student.velocity(*inputs), rtol=1e-5, atol=1e-5)
    assert (plain.velocity(*inputs) - model.denoiser.velocity(*inputs)).abs().max() > 0.01
    assert digest(model) == before


def recomputing(network):
    """As :meth:`fvgen.training.distributed.DistributedContext.place` makes it."""
    for stage in network.blocks()[:-1]:
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)
    return network


def joint_loss(model, teacher, student, fake):
    """Student to teacher's and fake score's features: three networks in one graph, used in turn."""
    x, t, condition = clip(model)
    x0 = student.x0(x, t, condition)
    later = torch.tensor([249])
    features = teacher.features(x0, later, condition).square().mean()
    return features + fake.features(x0, later, condition).square().mean() + 0.1 * x0.square().mean()


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_reach_the_factors_alone_through_all_networks(model, recompute):
    """Compared with plain merged networks, whose gradients are projected on the factors."""
    teacher = model.denoiser
    student, fake = moved(adapted(teacher, LORA, 0), 1), moved(adapted(teacher, LORA, 1), 2)
    plain = [merge(network).requires_grad_(True) for network in (student, fake)]
    joint_loss(model, copy.deepcopy(teacher), *plain).backward()
    for network in (teacher, student, fake) if recompute else ():
        recomputing(network)
    joint_loss(model, teacher, student, fake).backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    for network, whole in zip((student, fake), plain):
        weights, seen = dict(whole.named_modules()), 0
        for name, layer in low_rank_layers(network):
            if weights[name].weight.grad is None:  # the decoder, of which features see nothing
                assert layer.up.grad is None
                assert "decoder" in name
                assert network is fake
                continue
            gradient = weights[name].weight.grad.flatten(1)
            expected = 2 * gradient @ layer.down.detach().flatten(1).T, 2 * layer.up.detach().T @ gradient
            for found, wanted in zip((layer.up.grad, layer.down.grad.flatten(1)), expected):
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-8)
            seen += bool(gradient.abs().max() > 0)
        assert seen > 50


@pytest.mark.parametrize("autocast", [False, True])
def test_a_base_in_half_precision_has_factors_in_full(model, autocast):
    exact = moved(adapted(copy.deepcopy(model.denoiser), LORA), 1)
    student = moved(adapted(model.denoiser.bfloat16(), LORA), 1)
    x, t, condition = clip(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        x0 = recomputing(student).x0(x, t, condition)
        loss = (x0.float() - x).square().mean()
    loss.backward()
    assert x0.dtype == torch.float32
    assert (x0 - exact.x0(x, t, condition)).abs().mean() < 0.02 * x0.abs().mean()
    for name, part in trainable(student).named_parameters():
        assert part.dtype == part.grad.dtype == torch.float32, name
        assert part.grad.isfinite().all(), name
        assert part.grad.abs().max() > 0, name
    (exact.x0(x, t, condition) - x).square().mean().backward()
    found, wanted = (
        torch.cat([p.grad.flatten() for p in trainable(network).parameters()]) for network in (student, exact)
    )
    assert F.cosine_similarity(found, wanted, dim=0) > 0.98


def test_what_is_trained_has_the_names_of_the_network(model):
    student = adapted(model.denoiser, LORA)
    state, own = trainable(student).state_dict(), student.state_dict()
    assert {name.rsplit(".", 1)[1] for name in state} == {"up", "down"}
    assert all(own[name].data_ptr() == value.data_ptr() for name, value in state.items())
    assert len(state) == 2 * len(list(low_rank_layers(student)))
    average = adapted(model.denoiser, LORA, 5)
    trainable(average).load_state_dict(trainable(moved(student)).state_dict())
    assert torch.equal(average.velocity(*clip(model)), student.velocity(*clip(model)))


def test_training_moves_the_student_and_leaves_the_base(model):
    teacher, before = model.denoiser, digest(model)
    student = adapted(teacher, LORA)
    optimizer = torch.optim.AdamW(trainable(student).parameters(), lr=1e-2)
    x, t, condition = clip(model)
    wanted = moved(adapted(teacher, LORA, 1)).velocity(x, t, condition).detach()
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = (student.velocity(x, t, condition) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert digest(model) == before


def test_a_toy_network_is_adapted_and_stored(tmp_path):
    torch.manual_seed(0)
    base, x, t = ToyDenoiser(), torch.randn(7, 2), torch.full((7,), 500)
    digits = fingerprint(sorted(base.state_dict().items()))
    student = moved(adapted(base, LORA))
    assert len(list(low_rank_layers(student))) == 4
    torch.testing.assert_close(merge(student).x0(x, t), student.x0(x, t), rtol=1e-5, atol=1e-5)
    save_adapter(tmp_path / "toy", student, LORA, "toy", digits, torch.float32)
    adapter = Adapter.read(tmp_path / "toy")
    assert adapter.config == LORA
    again = adapted(base, adapter.config)
    trainable(again).load_state_dict(adapter.factors, strict=True)
    assert torch.equal(again.x0(x, t), student.x0(x, t))
    assert len(dict(adapter.merged(sorted(base.state_dict().items()), "", "toy"))) == len(base.state_dict())
    with pytest.raises(UserError, match="fingerprint"):
        list(adapter.merged(sorted(ToyDenoiser().state_dict().items()), "", "another"))
    assert Adapter.read(tmp_path) is None


@pytest.fixture
def student_folder(model, tmp_path):
    """A base, and beside it the adapter of a few-step student; the student itself."""
    model.save(tmp_path / "base", torch.float16)
    base = VideoModel.load(tmp_path / "base")
    digits = digest(base)
    student = VideoModel(base.config, base.autoencoder, base.conditioner, moved(adapted(base.denoiser, LORA)))
    student.save_adapter(tmp_path / "student", LORA, tmp_path / "base", digits)
    return tmp_path, student


def test_a_folder_with_an_adapter_is_a_model(student_folder):
    folder, student = student_folder
    loaded = VideoModel.load(folder / "student")
    inputs = clip(student)
    assert not any(isinstance(part, LowRank) for part in loaded.modules())
    torch.testing.assert_close(loaded.denoiser.x0(*inputs), student.denoiser.x0(*inputs), rtol=1e-5, atol=1e-5)
    half = VideoModel.load(folder / "student", dtype=torch.bfloat16)
    for name, value in half.denoiser.state_dict().items():  # rounded once, from what the files hold
        assert torch.equal(value, loaded.denoiser.state_dict()[name].bfloat16())
    pipeline = NovelViewPipeline.from_pretrained(folder / "student", device="cpu", deferred=True)
    assert pipeline.config == loaded.config
    assert pipeline.model is not None
    loaded.save(folder / "whole", torch.float32)
    assert not (folder / "whole" / "adapter.json").exists()
    whole = VideoModel.load(folder / "whole")
    assert torch.equal(whole.denoiser.x0(*inputs), loaded.denoiser.x0(*inputs))
    with pytest.raises(ValueError, match="adapters"):
        student.save(folder / "wrong")
    assert not (folder / "wrong").exists()


def test_a_base_may_move_with_its_adapter_but_not_change_or_go(student_folder):
    folder, student = student_folder
    (folder / "moved").mkdir()
    for name in ("base", "student"):
        (folder / name).rename(folder / "moved" / name)
    adapter = folder / "moved" / "student"
    expected = student.denoiser.x0(*clip(student))
    torch.testing.assert_close(VideoModel.load(adapter).denoiser.x0(*clip(student)), expected, rtol=1e-5, atol=1e-5)
    (folder / "moved" / "base").rename(folder / "elsewhere")
    for read in (VideoModel.load, partial(NovelViewPipeline.from_pretrained, device="cpu", deferred=True)):
        with pytest.raises(UserError, match=r"base of .*student.* is not there.*adapter\.json") as raised:
            read(adapter)
        assert "\n" not in str(raised.value)
    told = json.loads((adapter / "adapter.json").read_text())
    (adapter / "adapter.json").write_text(json.dumps(told | {"base": "../../elsewhere"}))
    torch.testing.assert_close(VideoModel.load(adapter).denoiser.x0(*clip(student)), expected, rtol=1e-5, atol=1e-5)
    random_model(preset("mini-xs"), torch.device("cpu"), torch.float32, seed=1).save(folder / "elsewhere")
    with pytest.raises(UserError, match=f"fingerprint {told['fingerprint']}, and .*elsewhere has") as raised:
        VideoModel.load(adapter)
    assert "\n" not in str(raised.value)
    shutil.copytree(adapter, folder / "stacked")
    (folder / "stacked" / "adapter.json").write_text(json.dumps(told | {"base": str(adapter)}))
    with pytest.raises(UserError, match="is an adapter itself"):
        VideoModel.load(folder / "stacked")
    (adapter / "adapter.safetensors").unlink()
    with pytest.raises(UserError, match=r"not a complete adapter: adapter\.safetensors is missing"):
        NovelViewPipeline.from_pretrained(adapter, device="cpu", deferred=True)


def test_mistakes_are_refused(model):
    for wrong in ({"rank": -1}, {"alpha": 0.0}, {"layers": ()}, {"layers": ("attentoin",)}):
        with pytest.raises(UserError):
            LoraConfig(**wrong)
    with pytest.raises(ValueError, match="rank of at least 1"):
        adapted(model.denoiser, LoraConfig(rank=0))
    with pytest.raises(ValueError, match="adapters already"):
        adapted(adapted(model.denoiser, LORA), LORA)
    with pytest.raises(ValueError, match="no layers of the kinds temporal"):
        adapted(ToyDenoiser(), LoraConfig(layers=("temporal",)))
    with pytest.raises(ValueError, match="groups"):
        adapted(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), LORA)


def test_the_budget_counts_one_base():
    lora_budget = runpy.run_path(str(SCRIPTS / "lora_memory.py"))["lora_budget"]
    network = VideoModel.build(preset("viewcrafter-512-16"), device="meta").denoiser
    budget = lora_budget(network, LoraConfig(rank=32))
    assert budget["base"] == 2 * 1_438_854_980
    factors = sum(
        32 * (w.shape[0] + w[0].numel())
        for _, w in ((n, m.base.weight) for n, m in low_rank_layers(adapted(network, LoraConfig(1))))
    )
    assert budget == {
        "base": 2 * 1_438_854_980,
        "student and fake score": 2 * 4 * factors,
        "average": 4 * factors,
        "moments": 4 * 4 * factors,
        "gradients": 4 * factors,
    }
    assert sum(budget.values()) < 5e9
