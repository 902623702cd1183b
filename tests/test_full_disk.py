"""A disk too small for what is written: one line that names the place, exit code 2, nothing half written."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import viewer_scene
from fvgen.cli import main as cli
from fvgen.errors import UserError
from fvgen.files import whole_folder
from fvgen.outputs import write_photos
from fvgen.training.checkpoints import save
from fvgen.training.distributed import DistributedContext
from fvgen.training.logs import RunLog
from fvgen.training.run_folder import whole_checkpoints


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one: run as root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``fvgen generate`` writes, with Gaussians."""
    folder = tmp_path_factory.mktemp("wall")
    write_photos(viewer_scene.scene(), folder)
    out = folder / "out"
    make = f"generate {folder}/transforms_photos.json -o {out} --model none --size 128x96 --frames 3 --quiet"
    assert cli.main(make.split()) == 0
    fit = f"reconstruct {out} -o {out}/splats.ply --iterations 2 --gaussians 1000 --longest 64 --device cpu --quiet"
    assert cli.main(fit.split()) == 0
    return out


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("generate {out}/transforms_photos.json -o {disk}/new/out --model none --size 128x96 --frames 3", "new/out"),
        ("reconstruct {out} -o {disk}/new/s.ply --iterations 2 --gaussians 1000 --longest 64", "new/s.ply"),
        ("splats {out}/splats.ply -o {disk}/new/s.ply", "new/s.ply"),
        ("splats {out}/splats.ply -o {disk}/s.glb", "s.glb"),
        ("page {out} -o {disk}/page.html", "page.html"),
        ("render {out}/splats.ply -o {disk}/flight.mp4 --frames 40 --size 256x160", "flight.mp4"),
        ("render {out}/splats.ply -o {disk}/flight --frames 4 --size 256x160", "flight"),
    ],
)
def test_results(result: Path, disk: Path, capfd: pytest.CaptureFixture[str], command: str, named: str) -> None:
    before = {path: path.read_bytes() for path in result.rglob("*") if path.is_file()}
    assert cli.main(command.format(out=result, disk=disk).split()) == 2
    *_, told = capfd.readouterr().err.splitlines()
    place = disk / named
    starts = tuple(
        f"fvgen: error: {what} {place}: no space left on the disk; free" for what in ("--output", "output folder")
    )
    assert told.startswith(starts), told
    assert not [path for path in disk.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in result.rglob("*") if path.is_file()} == before


def test_a_checkpoint(disk: Path) -> None:
    world, run = DistributedContext(), disk / "run"
    save(run, 1, {"a": torch.zeros(10)}, {}, world, keep=2)
    with pytest.raises(UserError, match=rf"^`output` {run}: no space left on the disk; free some"):
        save(run, 2, {"a": torch.zeros(100_000)}, {}, world, keep=2)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000001"]
    assert whole_checkpoints(run) == [run / "checkpoints/step-00000001"]


def test_a_model_folder_is_replaced_as_a_whole(disk: Path) -> None:
    for size in (100, 200):
        with whole_folder(disk / "model") as folder:
            save_file({"a": torch.zeros(size)}, folder / "model.safetensors")
    kept = (disk / "model/model.safetensors").read_bytes()
    with pytest.raises(UserError, match=rf"^{disk}/model: no space left on the disk; free some"):  # noqa: SIM117
        with whole_folder(disk / "model") as folder:
            save_file({"a": torch.zeros(100_000)}, folder / "model.safetensors")
    assert [path.name for path in disk.rglob("*")] == ["model", "model.safetensors"]
    assert (disk / "model/model.safetensors").read_bytes() == kept


def test_a_picture_of_a_run(disk: Path) -> None:
    with RunLog(disk, 0) as log, pytest.raises(OSError, match="No space left"):
        log.pictures(1, {"noise": torch.rand(3, 200, 200)})
    assert not list((disk / "pictures/noise").iterdir())
