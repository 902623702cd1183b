"""The page of transcripts shows what commands really print."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_mistakes(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(transcripts("Mistakes")) >= 10
    for command, shown in transcripts("Mistakes"):
        fvgen, *arguments = shlex.split(command)
        assert (fvgen, cli.main(arguments)) == ("fvgen", 2)
        assert capsys.readouterr() == ("", f"{shown}\n"), command
    assert [path.name for path in demo.iterdir()] == ["examples"]
