"""The page of transcripts shows what commands really print."""

import shlex
import shutil
from pathlib import Path

import pytest

from fvgen.cli import main as cli

REPOSITORY = Path(__file__).resolve().parent.parent


def transcripts() -> list[tuple[str, str]]:
    """Every command of the page, with what is shown below it."""
    blocks = (REPOSITORY / "docs/transcripts.md").read_text(encoding="utf-8").split("```")[1::2]
    shown = [part.partition("\n") for block in blocks for part in block.lstrip("\n").removeprefix("$ ").split("\n$ ")]
    return [(command, below.rstrip("\n")) for command, _, below in shown]


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(REPOSITORY / "examples/demo/photos", tmp_path / "examples/demo/photos")
    monkeypatch.chdir(tmp_path)
    assert len(transcripts()) >= 10
    for command, shown in transcripts():
        fvgen, *arguments = shlex.split(command)
        assert (fvgen, cli.main(arguments)) == ("fvgen", 2)
        assert capsys.readouterr() == ("", f"{shown}\n"), command
    assert [path.name for path in tmp_path.iterdir()] == ["examples"]
