"""Files of weights: where they are found, what is refused, and that the other metrics run without them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fvgen.errors import UserError
from fvgen.evaluation.metrics import FRAME_METRICS, SET_METRICS, FrameMetrics, SetMetrics, available, networks
from fvgen.models.weight_files import ALEXNET, INCEPTION, STLPIPS_ALEXNET, VGG_HEADS, WeightFile, Weights


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub instead of the user's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def written(folder: Path, name: str, values: dict[str, torch.Tensor]) -> WeightFile:
    """A file of weights and its description."""
    torch.save(values, folder / name)
    return WeightFile(name, hashlib.sha256((folder / name).read_bytes()).hexdigest(), "make one")


def test_a_missing_file_is_one_line_and_the_others_run(tmp_path: Path, cache: Path):
    reasons = available([*FRAME_METRICS, *SET_METRICS], weights=tmp_path)
    assert [n for n in ("psnr", "ssim_skimage11", "ssim_torchmetrics", "gradient_ratio") if reasons[n]] == []
    for name, file in (("fid", INCEPTION), ("kid", INCEPTION), ("lpips_alex_norm", ALEXNET)):
        assert "\n" not in reasons[name]
        assert reasons[name] == f"{file.name} is missing: {file.get} into {tmp_path} or {cache}"
    with pytest.raises(UserError, match="pt_inception.* is missing"):
        SetMetrics(["fid"])
    with pytest.raises(UserError, match="is missing"):
        FrameMetrics(["psnr", "lpips_vgg_norm"])


def test_the_folder_goes_before_the_cache(tmp_path: Path, cache: Path):
    file = written(cache, "a.pth", {"x": torch.zeros(1)})
    assert Weights().find(file) == cache / "a.pth"
    assert Weights(tmp_path).find(file) == cache / "a.pth"
    written(tmp_path, "a.pth", {"x": torch.zeros(1)})
    assert Weights(tmp_path).find(file) == tmp_path / "a.pth"


def test_an_installed_package_is_read_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inside = tmp_path / "broken_metrics" / "weights"
    inside.mkdir(parents=True)
    (tmp_path / "broken_metrics" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = replace(written(inside, "a.pth", {"x": torch.ones(2)}), packages=("broken_metrics/weights/a.pth",))
    weights = Weights()
    assert weights.read(file)["x"].tolist() == [1, 1]
    assert weights.used == {"a.pth": file.sha256}


def test_other_weights_under_a_published_name_are_refused(tmp_path: Path):
    written(tmp_path, VGG_HEADS.name, {"x": torch.ones(2)})
    with pytest.raises(UserError, match="is not the published lpips-v0.1-vgg.pth: its SHA-256 begins with"):
        Weights(tmp_path).read(VGG_HEADS)


def test_a_folder_of_weights_must_exist(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        Weights(tmp_path / "none")


def test_lpips_reads_the_published_layout(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Random weights, laid out as torchvision's file (with its classifier) and as the heads of lpips."""
    torch.manual_seed(0)
    trunk = networks.alexnet_trunk()
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate((64, 192, 384, 256, 256))}
    of_trunk = written(cache, ALEXNET.name, {**trunk.state_dict(), "classifier.6.bias": torch.zeros(1000)})
    of_heads = written(tmp_path, "lpips-v0.1-alex.pth", heads)
    monkeypatch.setattr(networks, "ALEXNET", of_trunk)
    monkeypatch.setattr(networks, "ALEXNET_HEADS", of_heads)
    metrics = FrameMetrics(["lpips_alex_norm", "lpips_alex_unscaled"], weights=tmp_path)
    a, b = torch.rand(2, 1, 64, 80, 3)
    expected = networks.Lpips(trunk, list(heads.values())).requires_grad_(False)
    found = metrics(a, b)
    assert float(found["lpips_alex_norm"]) == pytest.approx(float(expected(a, b)), rel=1e-6)
    assert float(found["lpips_alex_unscaled"]) == pytest.approx(float(expected(a, b, scaled=False)), rel=1e-6)
    assert metrics.weights.used == {of_trunk.name: of_trunk.sha256, of_heads.name: of_heads.sha256}


def test_stlpips_reads_the_published_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Random weights as its package has them: one file, layers counted with their blurs, the filters too."""
    torch.manual_seed(0)
    trunk = networks.alexnet_trunk(shift_tolerant=True)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate((64, 192, 384, 256, 256))}
    places = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
    names = [f"net.{place}.{which}" for place in places for which in ("weight", "bias")]
    values = dict(zip(names, trunk.state_dict().values()))
    values = {"scaling_layer.shift": torch.zeros(3), "net.slice1.1.filt": torch.zeros(64, 1, 3, 3), **values, **heads}
    monkeypatch.setattr(networks, "STLPIPS_ALEXNET", written(tmp_path, STLPIPS_ALEXNET.name, values))
    metrics = FrameMetrics(["stlpips_alex"], weights=tmp_path)
    a, b = torch.rand(2, 1, 64, 80, 3)
    expected = networks.Lpips(trunk, list(heads.values())).requires_grad_(False)(a, b)
    assert float(metrics(a, b)["stlpips_alex"]) == pytest.approx(float(expected), rel=1e-6)
