"""The command line: options, exit codes, one line for each mistake, and its page in the docs."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fvgen import __version__
from fvgen.cli import main as cli
from fvgen.cli.generate import Generate
from fvgen.cli.registry import COMMANDS, Command
from fvgen.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Raise:
    """A command that fails as told."""

    kind: str
    """What to raise."""

    def run(self) -> None:
        """Raise it."""
        raise {
            "user": UserError("photo.jpg: cut off;\n copy it again"),
            "argument": UserError("`model_size` 7: leave it, or `lora.rank`, out"),
            "interrupt": KeyboardInterrupt(),
            "full": OSError(errno.ENOSPC, "No space left on device", "out/views.mp4"),
            "pipe": BrokenPipeError(),
            "bug": ValueError("a bug"),
            "other": OSError(errno.EIO, "Input/output error"),
        }[self.kind]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "fail now", Command(__name__, "Raise", "fails"))


@pytest.mark.parametrize(
    ("kind", "code", "line"),
    [
        ("user", 2, "fvgen: error: photo.jpg: cut off; copy it again\n"),
        ("argument", 2, "fvgen: error: --model-size 7: leave it, or --lora.rank, out\n"),
        ("interrupt", 130, "fvgen: error: interrupted\n"),
        (
            "full",
            2,
            "fvgen: error: out/views.mp4: no space left on the disk; free some or write elsewhere\n",
        ),
    ],
)
def test_a_mistake_ends_in_one_line(
    failing: None, capsys: pytest.CaptureFixture[str], kind: str, code: int, line: str
) -> None:
    assert cli.main(["fail", "now", "--kind", kind]) == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(("kind", "error"), [("bug", ValueError), ("other", OSError)])
def test_a_bug_keeps_its_traceback(failing: None, kind: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        cli.main(["fail", "now", "--kind", kind])


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fvgen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_help_and_version() -> None:
    assert run("--version").stdout == f"fvgen {__version__}\n"
    overview = run("--help").stdout
    assert run().stdout == overview
    for name, command in COMMANDS.items():
        assert name in overview
        assert command.summary in overview
        page = run(*name.split(), "--help")
        assert page.returncode == 0
        assert page.stdout.startswith(f"usage: fvgen {name}")


def test_a_group_of_commands_has_its_own_list(failing: None, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["fail"], ["fail", "--help"]):
        assert cli.main(arguments) == 0
        printed = capsys.readouterr().out
        assert "fail now" in printed
        assert "generate" not in printed
    assert cli.main(["fail", "nwo"]) == 2
    assert capsys.readouterr().err == "fvgen: error: there is no command 'fail nwo': did you mean 'fail now'?\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("gnerate", "there is no command 'gnerate': did you mean 'generate'?"),
        ("xyz", "there is no command 'xyz': see fvgen --help"),
        ("generate -o out", "no photos: name image files, a folder, a video, a transforms.json or a COLMAP folder"),
        ("generate a.jpg -o out --size 100", "--size 100: write WIDTHxHEIGHT in pixels, such as 1024x640"),
        ("generate a.jpg -o out --size 0x7", "--size 0x7: write WIDTHxHEIGHT in pixels, such as 1024x640"),
        ("generate a.jpg -o out --frames 1", "--frames 1: a path has at least 2 frames"),
        ("generate a.jpg -o out --steps 0", "--steps 0: at least 1 step is needed"),
        ("generate a.jpg -o out --fps nan", "--fps nan: choose a number above 0 and at most 1000"),
        ("generate a.jpg -o out --path no.json", "--path no.json: there is no such file"),
        ("generate a.jpg -o out --path round", "--path round: choose one of through, orbit, spiral, dolly, or name a"),
        (
            "generate a.jpg -o out --path moves.txt",
            "--path moves.txt: a trajectory in a text file is named viewcrafter:moves",
        ),
        ("generate a.jpg -o out --path viewcrafter:spin", "--path viewcrafter:spin: after viewcrafter: comes target, "),
        (
            "generate a.jpg -o out --path viewcrafter:target,d=1",
            "--path viewcrafter:target,d=1: there is no option 'd'",
        ),
        ("generate a.jpg -o out --path viewcrafter:no.txt", "no.txt: cannot be read (No such file or directory)"),
        ("generate a.jpg -o out --steps four", "Error parsing --steps"),
        ("generate a.jpg -o out --geometry guess", "invalid choice 'guess' for argument '--geometry'"),
        ("generate a.jpg -o out --bogus", "Unrecognized options: --bogus"),
        ("generate a.jpg", "Missing from fvgen generate: -o FOLDER, --output FOLDER"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"fvgen: error: {line}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_options_reach_the_command() -> None:
    text = (
        "a.jpg b.jpg -o out --model none --steps 4 --guidance-scale 2.5 --seed 3 --path orbit --frames 9 --size 64x32"
    )
    command = cli._parse(
        "generate", (text + " --geometry da3 --geometry-weights small --device cpu --dtype float32 --overwrite").split()
    )
    assert command == Generate(
        photos=("a.jpg", "b.jpg"),
        output=Path("out"),
        model="none",
        steps=4,
        guidance_scale=2.5,
        seed=3,
        path="orbit",
        frames=9,
        size="64x32",
        geometry="da3",
        geometry_weights="small",
        device="cpu",
        dtype="float32",
        overwrite=True,
    )


def test_a_full_output_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    done = run("generate", "nothing.jpg", "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr == (
        f"fvgen: error: output folder {tmp_path / 'out'} is not empty; choose another, or add --overwrite\n"
    )


def test_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "fvgen", "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(tmp_path: Path, kill: signal.Signals) -> None:
    script = f"""
import sys, time
from fvgen.cli.main import main
from fvgen.cli.registry import COMMANDS, Command
sys.modules["slow"] = sys.modules["__main__"]
COMMANDS["slow"] = Command("slow", "Slow", "waits")
import dataclasses
@dataclasses.dataclass
class Slow:
    "Waits."
    def run(self):
        from fvgen.outputs import output_folder
        with output_folder({str(tmp_path / "deep" / "out")!r}) as folder:
            (folder / "half").write_text("half")
            print("ready", flush=True)
            time.sleep(60)
sys.exit(main(["slow"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(kill, signal.SIG_DFL),  # jobs in the background of a shell ignore SIGINT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert any(p.name == "half" for p in tmp_path.rglob("*"))
    time.sleep(0.1)
    process.send_signal(kill)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "fvgen: error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def documented_commands() -> list[str]:
    """Every ``fvgen ...`` line of the README and of the docs, without its comment; longer ones joined."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    blocks = [b for page in pages if page.name != "cli.md" for b in page.read_text().split("```")[1::2]]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return sorted({" ".join(line.partition(" #")[0].split()) for line in lines if line.startswith("fvgen ")})


def test_commands_in_the_docs_are_understood() -> None:
    commands = documented_commands()
    assert len(commands) > 30
    for line in commands:
        arguments = shlex.split(line.replace("[", "").replace("]", ""))[1:]
        name = next(" ".join(arguments[:n]) for n in (2, 1) if " ".join(arguments[:n]) in COMMANDS)
        assert cli._parse(name, arguments[len(name.split()) :]) is not None, line


def test_the_docs_page_is_up_to_date() -> None:
    script = REPOSITORY / "scripts" / "write_cli_docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
