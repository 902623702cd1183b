"""The page of transcripts shows what commands really print."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fvgen.cli import main as cli

REPOSITORY = Path(__file__).resolve().parent.parent


def transcripts(heading: str) -> list[tuple[str, str]]:
    """Every command below a heading of the page, with what is shown below it."""
    section = (REPOSITORY / "docs/transcripts.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    blocks = section.split("\n## ")[0].split("```")[1::2]
    shown = [part.partition("\n") for block in blocks for part in block.lstrip("\n").removeprefix("$ ").split("\n$ ")]
    return [(command, below.rstrip("\n")) for command, _, below in shown]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the demo's photos."""
    shutil.copytree(REPOSITORY / "examples/demo/photos", tmp_path / "examples/demo/photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs(demo: Path) -> None:
    """Redirected, as the page says; but for the numbers, which are seconds and shares of this machine."""
    assert len(transcripts("A run")) == 2
    for command, shown in transcripts("A run"):
        _, *arguments = shlex.split(command)
        run = [sys.executable, "-m", "fvgen", *arguments]
        said = subprocess.run(run, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        found, expected = (re.sub(r"\b\d+ (s|%)", r"# \1", text).strip() for text in (said, shown))
        assert re.sub(r"frame \d+", "frame #", found) == re.sub(r"frame \d+", "frame #", expected)


def turned(photo: Image.Image, degrees: float) -> Image.Image:
    """A photo as a camera of the same focal length, 614 pixels, sees it that was turned on its spot."""
    width, height, focal = 614, 400, 614.0
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    lenses = [np.array([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]]) for w, h in (photo.size, (width, height))]
    across = lenses[0] @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]) @ np.linalg.inv(lenses[1])
    numbers = (across / across[2, 2]).flatten()[:8].tolist()
    return photo.transform((width, height), Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC)


def test_photos_that_cannot_be_placed(demo: Path) -> None:
    with Image.open(demo / "examples/demo/photos/00.jpg") as file:
        photo = file.convert("RGB")
    with Image.open(REPOSITORY / "docs/images/procedural.jpg") as file:
        other = file.convert("RGB")
    for folder, pictures in {
        "turned": (turned(photo, -5), turned(photo, 5)),
        "strangers": (photo, other),
    }.items():
        (demo / folder).mkdir()
        for i, picture in enumerate(pictures):
            picture.save(demo / folder / f"{i}.jpg", quality=95)
    assert len(transcripts("Photos that cannot be placed")) == 3
    for command, shown in transcripts("Photos that cannot be placed"):
        _, *arguments = shlex.split(command)
        done = subprocess.run([sys.executable, "-m", "fvgen", *arguments], text=True, capture_output=True)
        assert (done.returncode, done.stdout) == (2, "")
        said, expected = (re.sub(r"\b\d+ s\b", "# s", text.strip()) for text in (done.stderr, shown))
        assert said == expected
    assert not (demo / "scene").exists()


def test_mistakes(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(transcripts("Mistakes")) >= 10
    for command, shown in transcripts("Mistakes"):
        fvgen, *arguments = shlex.split(command)
        assert (fvgen, cli.main(arguments)) == ("fvgen", 2)
        assert capsys.readouterr() == ("", f"{shown}\n"), command
    assert [path.name for path in demo.iterdir()] == ["examples"]
