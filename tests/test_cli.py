"""The command line: options, exit codes, one line for each mistake, and its page in the docs."""

import errno
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import viewer_scene
from fvgen import __version__
from fvgen.cli import main as cli
from fvgen.cli.generate import Generate
from fvgen.cli.registry import COMMANDS, HEADINGS, Command
from fvgen.cli.unknown import _CALLED_ELSEWHERE
from fvgen.errors import UserError
from fvgen.files import SCENE
from fvgen.outputs import write_photos
from fvgen.pipeline import NovelViewPipeline
from fvgen.scene.build import _tell_cameras
from fvgen.scene.types import Dropped

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


def test_commands_are_listed_under_headings() -> None:
    listed = [name for firsts in HEADINGS.values() for name in COMMANDS if name.split()[0] in firsts]
    assert sorted(listed) == sorted(COMMANDS)
    overview = cli._overview("").splitlines()
    assert [line for line in overview if line.endswith(":")] == ["use:", "measure:", "train:"]
    assert overview.index("use:") < overview.index("measure:") < overview.index("train:")


def test_help_tells_no_defaults_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        page = cli_help(name, capsys)
        assert "default: None" not in page
        assert "default: )" not in page
    assert "(default: mini)" in cli_help("generate", capsys)


def cli_help(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """A command's page, without the lines of its boxes and the breaks in its texts."""
    with pytest.raises(SystemExit):
        cli.main([*name.split(), "--help"])
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("generate no.jpg -o out", "no.jpg: no such file or folder"),
        ("generate here -o here/file", "output folder here/file: {here}/file is a file; choose another folder"),
        ("generate here -o out --model nope", "model 'nope' is neither one of the package"),
        ("generate here -o out --geometry da3", "da3 needs the package depth-anything-3: pip install "),
        ("generate here -o out --depth dust3r", 'dust3r needs the package mini-dust3r: pip install "fvgen[dust3r]" &&'),
        ("evaluate no -o out", "no: no such folder"),
        ("evaluate here -o out --index no.json", "no.json: no such file or folder"),
        (
            "evaluate here -o out",
            'an inpainted baseline needs the package opencv-python-headless: pip install "fvgen[eval]", or choose '
            "other --baselines",
        ),
        ("prepare no -o out", "no: no such file or folder"),
        (
            "prepare here -o out --ray-address local",
            '--ray-address needs the package ray: pip install "fvgen[clu',
        ),
        ("reconstruct no -o out.ply", "no: there is no such folder; name one that fvgen generate wrote"),
        (
            "reconstruct here -o out.ply --renderer gsplat",
            "--renderer gsplat needs the package gsplat: pip install ",
        ),
        ("train depth -o here", "--output here holds other things, and no run to go on with; choose another folder"),
        ("train depth -o run --start no", "no: no such file or folder"),
        ("train autoencoder -o run --textures no", "no: no such file or folder"),
        ("train teacher --model no --data procedural:1 -o run", "model 'no' is neither one of the package"),
        (
            "train teacher --model mini --data here -o run",
            "--data here: no training pairs there; make some with",
        ),
        (
            "train teacher --model mini --data procedural:1 -o here/file",
            "--output here/file: cannot be written (not",
        ),
        (
            "train teacher --model mini --data procedural:1 -o run --tensorboard",
            "--tensorboard needs the package",
        ),
        ("train all -o run --footage no", "no: no such file or folder"),
        ("distill mini --data no -o run", "--data no: no training pairs there"),
        ("distill mini --data procedural:1 --teacher no -o run", "model 'no' is neither one of the package"),
        (
            "distill mini --data procedural:1 -o student",
            "--output student holds a run of another kind (teacher",
        ),
        (
            "distill toy -o /proc/run",
            "--output /proc/run: cannot be written (no such file or directory)",
        ),
        ("export here -o model", "here is not a distillation's run with a checkpoint"),
        ("plot here", "here is not a training run: it has no log.jsonl"),
        ("convert no.ckpt -o model", "no.ckpt: no such file or folder"),
        ("convert here -o model", "here: a folder; name the checkpoint's file"),
        ("convert here/file -o here", "output folder here is not empty; choose another, or add --overwrite"),
        (
            "convert here --to viewcrafter -o m.ckpt",
            "here was not converted from a ViewCrafter checkpoint: it has",
        ),
        ("convert here/file --text no -o model", "no: no such file or folder"),
        (
            "prepare here -o student",
            "--output student holds a run of another kind (teacher, not pairs)",
        ),
        ("data here", "here holds no training pairs: it has neither train/ nor heldout/"),
        ("benchmark data here", "here holds no training pairs: it has neither train/ nor heldout/"),
        ("benchmark stages no.jpg", "no.jpg: no such file or folder"),
        ("benchmark stages --models no:4", "model 'no' is neither one of the package"),
        ("benchmark count no", "model 'no' is neither one of the package"),
        ("benchmark count -o here/file/x.json", "--output here/file/x.json: cannot be written (not a directory)"),
        ("render no.ply -o x.mp4", "no.ply: no such file or folder"),
        ("splats here/file -o x.xyz", "--output x.xyz: name a file that ends in .ply, .spz, .glb, .gltf"),
        ("reconstruct here -o here/file/x.ply", "--output here/file/x.ply: cannot be written (not a directory)"),
        ("evaluate here -o out --models no --baselines guide", "model 'no' is neither one of the package"),
        ("tables no -o out", "no: no such file or folder"),
        ("view here", 'fvgen view needs the package viser: pip install "fvgen[viewer]"'),
        ("page no -o out.html", "no: no such folder; name what fvgen generate wrote"),
    ],
)
def test_what_is_missing_is_told_before_torch_is_imported(tmp_path: Path, arguments: str, line: str) -> None:
    (tmp_path / "here" / "folder").mkdir(parents=True)
    (tmp_path / "here" / "file").touch()
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "run.json").write_text('{"identity": {"task": "teacher"}}')
    before = sorted(tmp_path.rglob("*"))
    absent = "tensorboard cv2 gsplat ray viser mini_dust3r depth_anything_3"
    script = f"""
import sys
sys.modules.update(dict.fromkeys({absent.split()!r}))
from fvgen.cli.main import main
code = main({arguments.split()!r})
sys.exit("torch imported" if "torch" in sys.modules else code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.startswith("fvgen: error: " + line.format(here=tmp_path / "here"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert sorted(tmp_path.rglob("*")) == before


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
        ("generate a.jpg -o out --bogus", "there is no option --bogus (see fvgen generate --help)"),
        ("generate a.jpg --num-frames 3", "there is no option --num-frames: did you mean --frames? (see fvgen gen"),
        ("generate a.jpg --num_frames=3", "there is no option --num-frames: did you mean --frames? (see fvgen gen"),
        ("prepare a --least-covrage 1", "there is no option --least-covrage: did you mean --least-coverage?"),
        ("generate a.jpg --verbose", "there is no option --verbose (see fvgen generate --help)"),
        ("evaluate a --batch-size 4", "there is no option --batch-size (see fvgen evaluate --help)"),
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


ELSEWHERE = """
train teacher --learning-rate 1e-4: --lr
train teacher --batch_size 4: --batch
train teacher --max-grad-norm 1: --adam.clip
train depth --num-workers 2: --workers
train all --gpus 2: --device
distill mini --gradient_accumulation_steps 4: --accumulate
distill mini --gradient-checkpointing: --recompute
distill mini --train-data-dir pairs: --data
distill viewcrafter-512-lora --rank 16: --lora.rank
generate a.jpg --num-inference-steps 4: --steps
generate a.jpg --width 640: --size
generate a.jpg --cfg-scale=3: --guidance-scale
generate a.jpg --enable-model-cpu-offload: --offload
generate a.jpg --force: --overwrite
generate a.jpg -n 30: --frames
reconstruct out --max-steps 300: --iterations
reconstruct out --init_num_pts 300: --gaussians
reconstruct out --data-factor 4: --longest
render a.ply --camera-path-filename path.json: --path
view out --viewer.websocket-port 7007: --port
evaluate out --model mini: --models
prepare out --resolution 512x320: --size
benchmark stages --num-threads 2: --threads
convert a.ckpt --out model: --output
generate --image_path photos: named without an option
splats --input a.ply: named without an option
"""


@pytest.mark.parametrize("typed", ELSEWHERE.strip().splitlines())
def test_options_of_other_programs_name_ours(capsys: pytest.CaptureFixture[str], typed: str) -> None:
    """Before anything that is missing."""
    arguments, own = typed.split(": ")
    assert cli.main(arguments.split()) == 2
    err = capsys.readouterr().err
    option = re.search(r" (--?[a-z][\w.-]*)", arguments.replace("_", "-"))
    assert option is not None
    start = f"fvgen: error: there is no option {option[1]}: "
    said = start + (f"did you mean {own}? (see fvgen " if own.startswith("--") else "what is read is named without")
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_what_others_call_our_options_are_no_options_of_ours_twice() -> None:
    """A name that points to two of ours points to those of different commands: the first that a command has is told."""
    for own, others in _CALLED_ELSEWHERE.items():
        assert own not in others.split()
        assert others == " ".join(dict.fromkeys(others.split()))


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


def waiting(kill: signal.Signals, first: str, doing: str) -> "subprocess.Popen[str]":
    """A process that runs ``first`` and then a command of our own, ``doing`` something and waiting for a minute."""
    script = f"""
import atexit, dataclasses, sys, time
from fvgen.cli.main import main
from fvgen.cli.registry import COMMANDS, Command
sys.modules["slow"] = sys.modules["__main__"]
COMMANDS["slow"] = Command("slow", "Slow", "waits")
{first}
@dataclasses.dataclass
class Slow:
    "Waits."
    def run(self):
        from fvgen.outputs import output_folder
        {doing}
sys.exit(main(["slow"]))
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(kill, signal.SIG_DFL),  # jobs in the background of a shell ignore SIGINT
    )


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(tmp_path: Path, kill: signal.Signals) -> None:
    writing = f"""
        with output_folder({str(tmp_path / "deep" / "out")!r}) as folder:
            (folder / "half").write_text("half")
            print("ready", flush=True)
            time.sleep(60)"""
    process = waiting(kill, "", writing)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert any(p.name == "half" for p in tmp_path.rglob("*"))
    time.sleep(0.1)
    process.send_signal(kill)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "fvgen: error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_python_ends_makes_no_traceback(kill: signal.Signals) -> None:
    ending = 'atexit.register(lambda: (print("ending", flush=True), time.sleep(60)))'
    process = waiting(kill, ending, 'print("ready", flush=True); time.sleep(60)')
    assert process.stdout is not None
    for line in ("ready\n", "ending\n"):
        assert process.stdout.readline() == line
        time.sleep(0.1)
        process.send_signal(kill)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (-kill, "fvgen: error: interrupted\n")


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of a wall, with their cameras."""
    folder = tmp_path_factory.mktemp("wall")
    write_photos(viewer_scene.scene(), folder)
    return folder / "transforms_photos.json"


def generate(*arguments: object) -> int:
    size = "128x96"  # of smaller frames x264 does not always make the same bytes
    return cli.main(["generate", *map(str, arguments), "--model", "none", "--size", size])


def test_every_stage_leaves_a_line(wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my scene"
    assert generate(wall, "-o", out, "--frames", 5) == 0
    printed, told = capsys.readouterr()
    lines = told.splitlines()
    starts = [
        f"loading: model none, {wall}",
        "photos: 3 read, ",
        "cameras: 3 of 3 photos, given",
        "depth: 3 photos (sweep",
    ]
    starts += [f"kept: {out}/{SCENE}, from which the same command", "guide: ", f"wrote {out}/views.mp4", "next:"]
    assert [line[: len(start)] for line, start in zip(lines, starts)] == starts
    assert "\r" not in told  # no remains of bars
    shown = json.loads((out / "summary.json").read_text())["measured"]
    least = f"least {100 * shown['least']:.0f} %, frame {shown['frame']}"
    assert printed == f"5 frames in {out}: {100 * shown['mean']:.0f} % measured ({least})\n"
    assert printed.partition(": ")[2].strip() in lines[5]
    for line in lines[8:]:  # what comes next can be copied
        name, *arguments = shlex.split(line)[1:]
        assert str(out) in arguments
        assert cli._parse(name, arguments) is not None
    assert not logging.getLogger("fvgen").handlers


def test_quiet_tells_nothing_but_the_result(wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(wall, "-o", tmp_path / "out", "--frames", 3, "--quiet") == 0
    printed, told = capsys.readouterr()
    assert (printed.count("\n"), told) == (1, "")


def test_the_lines_of_a_fit(wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(wall, "-o", tmp_path / "out", "--frames", 5) == 0
    capsys.readouterr()
    scene = tmp_path / "scene.ply"
    fit = ["reconstruct", str(tmp_path / "out"), "-o", str(scene), "--iterations", "3", "--gaussians", "50"]
    assert cli.main(fit) == 0
    lines = capsys.readouterr().err.splitlines()
    starts = ["frames: 3 photos, 2 generated", "fitting: 3 iterations, ", f"wrote {scene}, and beside it"]
    assert [line[: len(start)] for line, start in zip(lines, starts)] == starts


def test_views_that_are_mostly_made_up_are_no_success(
    wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = json.loads(wall.read_text())
    for frame in away["frames"]:  # turned round: what is there, no photo shows
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ np.diag([-1.0, 1, -1, 1])).tolist()
    path = tmp_path / "away.json"
    path.write_text(json.dumps(away))
    assert generate(wall, "-o", tmp_path / "out", "--path", path) == 0
    printed, told = capsys.readouterr()
    assert "fvgen: warning: only 0 % of the frames is measured" in told
    assert "or --path through" in told
    assert printed.endswith("; too little to be trusted\n")


def test_a_photo_left_out_is_named_when_it_is(caplog: pytest.LogCaptureFixture) -> None:
    photos = viewer_scene.scene().photos
    placed = replace(photos.select([0, 2]), dropped=[Dropped("b.png", "nothing matched")])
    with caplog.at_level(logging.INFO, "fvgen"):
        _tell_cameras(photos, placed, "colmap", 24.2)
    assert caplog.messages == ["cameras: 2 of 3 photos, 24 s", "left out b.png: nothing matched"]


def test_an_earlier_run_is_gone_on_from_to_the_same_bytes(
    wall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(wall.parent, source)
    listed = source / "transforms_photos.json"
    listed.write_text(listed.read_text().replace("a.png", "a.jpg").replace("b.png", "b.jpg"))
    turned = Image.Exif()
    turned[274] = 3
    for name, exif in (("a", Image.Exif()), ("b", turned)):
        Image.open(source / "photos" / f"{name}.png").save(source / "photos" / f"{name}.jpg", exif=exif)
    orbit = ("--path", "orbit", "--frames", 5)
    assert generate(listed, "-o", tmp_path / "first", "--frames", 4) == 0
    assert generate(listed, "-o", tmp_path / "fresh", *orbit) == 0
    first = (tmp_path / "first").rename(tmp_path / "elsewhere")
    shutil.rmtree(source)
    with monkeypatch.context() as patch:
        patch.setattr("fvgen.pipeline.build_scene", lambda *_, **__: pytest.fail("the scene was built again"))
        capsys.readouterr()
        assert generate(first, "-o", tmp_path / "again", *orbit) == 0
    assert f"scene: 3 photos, their cameras and depth as kept in {first}\n" in capsys.readouterr().err
    files = sorted(path.relative_to(tmp_path / "fresh") for path in (tmp_path / "fresh").rglob("*") if path.is_file())
    assert {"a.jpg", "b.jpg.png", "c.png", "views.mp4"} <= {path.name for path in files}
    for path in files:
        one, other = ((tmp_path / run / path).read_bytes() for run in ("fresh", "again"))
        if path.name == "summary.json":
            assert {**json.loads(one), "seconds": None} == {**json.loads(other), "seconds": None}
        else:
            assert one == other, path

    assert generate(first, "-o", tmp_path / "no", "--geometry", "colmap") == 2
    assert "--geometry colmap: " in capsys.readouterr().err
    photo = first / "photos" / "c.png"
    Image.fromarray(255 - np.asarray(Image.open(photo))).save(photo)
    assert generate(first, "-o", tmp_path / "no") == 2
    assert f"{photo} is not the photo that {first / SCENE} was made of" in capsys.readouterr().err
    photo.unlink()
    assert generate(first, "-o", tmp_path / "no") == 2
    assert f"{photo} is gone" in capsys.readouterr().err
    (first / SCENE).write_bytes((first / SCENE).read_bytes()[:-9])
    assert generate(first, "-o", tmp_path / "no") == 2
    assert f"{first / SCENE}: damaged" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_scene_that_cannot_be_kept_leaves_nothing(
    wall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fvgen.scene.store.write_whole", full)
    out = tmp_path / "deep" / "out"
    assert generate(wall, "-o", out, "--frames", 4) == 2
    assert f"output folder {out}: no space left on the disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_goes_on(
    wall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    with monkeypatch.context() as patch:
        patch.setattr(NovelViewPipeline, "guide", interrupt)
        assert generate(wall, "-o", out, "--frames", 4) == 130
    assert [path.name for path in out.parent.rglob("*")] == ["out", SCENE]
    capsys.readouterr()
    for arguments in ((wall, "-o", out, "--geometry", "given"), (wall.parent / "photos", "-o", out)):
        assert generate(*arguments) == 2  # other options, other photos
        error = f"fvgen: error: output folder {out} holds the scene of an interrupted run of other photos or options: "
        assert capsys.readouterr().err.splitlines()[-1] == error + "choose another, or add --overwrite"
    assert generate(out, "-o", tmp_path / "no") == 2
    assert "holds the scene of an interrupted run: run the same command again" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("fvgen.pipeline.build_scene", lambda *_, **__: pytest.fail("the scene was built again"))
        assert generate(wall, "-o", out, "--frames", 4) == 0
    assert f"their cameras and depth as kept in {out}\n" in capsys.readouterr().err
    assert generate(wall, "-o", tmp_path / "whole", "--frames", 4) == 0
    for name in ("views.mp4", "points.ply", SCENE):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_earlier_result_is_whole_until_the_next_one_is(
    wall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert generate(wall, "-o", out, "--frames", 3) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(NovelViewPipeline, "guide", interrupt)
    assert generate(wall, "-o", out, "--overwrite", "--depth", "sweep") == 130
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


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
