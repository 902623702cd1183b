"""The page of the paper's run and its rehearsal: every line has a rule, is understood, and runs in small."""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fvgen.cli import main as cli
from fvgen.cli.main import main
from fvgen.cli.registry import COMMANDS
from fvgen.data.footage import find_scenes, open_footage
from fvgen.data.prepare import split_of
from fvgen.data.recipe import PrepareRecipe
from fvgen.evaluation.datasets import find_scenes as find_evaluated
from fvgen.models import VideoModel, preset
from fvgen.models.viewcrafter.config import clip_configs, model_config
from fvgen.models.viewcrafter.text import build_text_tower

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "reproduce.md").read_text()


def script(name: str) -> ModuleType:
    """A program of ``scripts/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


rehearsal, inputs = script("rehearsal"), script("rehearsal_inputs")
LINES = rehearsal.documented(PAGE)
OURS = [line for line in LINES if rehearsal.is_ours(line)]


def understood(line: str) -> bool:
    """Whether the command line takes a line."""
    words = shlex.split(line)
    words = words[words.index("-m") + 2 :] if words[0] == "torchrun" else words[1:]
    name = next(" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS)
    return cli._parse(name, words[len(name.split()) :]) is not None


def test_the_page_goes_from_downloads_to_tables() -> None:
    assert len(LINES) > 25
    assert not rehearsal.is_ours(LINES[0])
    assert [line for line in LINES if line.startswith("fvgen tables ")]


@pytest.mark.parametrize("line", OURS)
def test_a_line_and_what_is_run_instead_are_understood(line: str) -> None:
    assert understood(line)
    assert understood(rehearsal.in_small(line))


@pytest.mark.parametrize("line", OURS)
def test_a_line_in_small_keeps_every_option(line: str) -> None:
    """All of its words, in order, but for the values that the table of changes names; more come only at the end."""
    full, small = shlex.split(line), shlex.split(rehearsal.in_small(line))
    assert len(small) >= len(full)
    for k, (word, run) in enumerate(zip(full, small)):
        if word != run:
            assert not word.startswith("--")
            assert run == rehearsal.CHANGES.get(full[k - 1], rehearsal.CHANGES.get(word))
    added = [word for word in small[len(full) :] if word.startswith("--")]
    assert not set(added) & set(full)
    assert set(added) <= set(f"{rehearsal.rule_for(line).adds} {rehearsal.KILLED_ADDS}".split())


def test_no_rule_or_change_is_left_over() -> None:
    rules = [rehearsal.rule_for(line) for line in LINES]
    assert set(rehearsal.RULES) == set(rules)
    words = {word for line in OURS for word in shlex.split(line)}
    assert set(rehearsal.CHANGES) <= words
    made = {rule.makes for rule in rules if rule.makes} | set(rehearsal.BESIDES)
    assert made == set(inputs.MAKERS)


def test_a_line_without_a_rule_is_refused(tmp_path: Path) -> None:
    for line in ("fvgen prepared x", "wget https://example.org/weights", "fvgen distill viewcrafter-5120 -o x"):
        with pytest.raises(rehearsal.Failed, match="0 rules"):
            rehearsal.Rehearsal([line], tmp_path)
    with pytest.raises(rehearsal.Failed, match="--size is documented"):
        rehearsal.in_small("fvgen prepare x --output pairs --size 512x320")


def test_blocks_in_a_language_are_no_part_of_the_run() -> None:
    page = (
        "a `fvgen x`\n```\nfvgen one \\\n    --two  # three\n\n# four\n```\n```text\nfvgen five\n```\n```\nsix\n```\n"
    )
    assert rehearsal.documented(page) == ["fvgen one --two", "six"]


class Recorded(rehearsal.Rehearsal):  # type: ignore[name-defined,misc]
    """Runs nothing, but writes what a line would have."""

    def run_line(self, number: int) -> float:
        self.ran.append(self.lines[number])
        (self.work / rehearsal.output_of(self.runs[number])).mkdir(exist_ok="plot" in self.lines[number])
        if "fails" in self.lines[number]:
            raise rehearsal.Failed("it fails")
        return 1.0


def test_lines_are_kept_until_they_or_those_before_them_change(tmp_path: Path) -> None:
    def go(*lines: str) -> list[str]:
        made = Recorded(lines, tmp_path)
        besides = len(rehearsal.BESIDES)
        made.lines, made.runs, made.ran = made.lines[besides:], made.runs[besides:], []
        with contextlib.suppress(rehearsal.Failed):
            made.go()
        return made.ran

    a, b, fails = "fvgen export x --output a", "fvgen export y --output b", "fvgen plot fails --output c"
    assert go(a, b, fails) == [a, b, fails]
    (tmp_path / "c" / "half").mkdir()
    assert go(a, b, fails) == [fails]  # and nothing else
    assert (tmp_path / "c" / "half").is_dir()  # it went on from there
    seconds = [entry["seconds"] for entry in json.loads((tmp_path / "rehearsal.json").read_text())]
    assert seconds == [1.0, 1.0, None]
    other = "fvgen export z --output b"
    assert go(a, other, fails) == [other, fails]  # the folder b was removed, or it could not be made again
    assert not (tmp_path / "c" / "half").exists()  # what was left half done rested on the line that changed
    assert go("fvgen export x --output a2", other) == ["fvgen export x --output a2", other]
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "c").exists()


def test_killing_reaches_what_a_program_started(tmp_path: Path) -> None:
    child = "import time; print('child', flush=True); time.sleep(60)"
    parent = (
        f"from subprocess import Popen; Popen([{sys.executable!r}, '-c', {child!r}], start_new_session=True).wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "child\n"
    assert rehearsal._kill(process) == 2
    assert process.stdout.read() == ""  # ends only when nobody can write any more


def test_the_checkpoint_has_all_keys_of_the_published_ones() -> None:
    default = REPOSITORY.parent / "shared" / "reference" / "viewcrafter_manifest.json"
    file = Path(os.environ.get("FVGEN_MANIFEST", default))
    if not file.is_file():
        pytest.skip(f"MANIFEST ABSENT: {file} (set FVGEN_MANIFEST)")
    manifest = json.loads(file.read_text())
    prefixes = {**manifest["_meta"]["prefixes"], "ddpm_buffers": ""}
    published = {prefix + key for part, prefix in prefixes.items() for key in manifest[part]}
    config, (_, text) = preset("viewcrafter-25"), clip_configs(None)
    parts = {name: module.state_dict() for name, module in VideoModel.build(config, "meta").components().items()}
    keys = set(inputs.checkpoint_keys({**parts, "text_encoder": build_text_tower(text).state_dict()}))
    small = set(inputs.random_state(*model_config(inputs.PARAMS, preset("viewcrafter-25-sparse"))))
    assert keys <= published
    towers = re.compile(r".*\.resblocks\.\d+\..*")  # which are shallower
    assert {key for key in published if not towers.match(key)} == {key for key in small if not towers.match(key)}
    assert small <= published


def test_the_checkpoint_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.write_checkpoint(tmp_path / "model_sparse.ckpt", tmp_path / "small.yaml")
    arguments = [str(tmp_path / "model_sparse.ckpt"), "--preset", "viewcrafter-512-16", "-o", str(tmp_path / "teacher")]
    assert main(["convert", *arguments, "--config", str(tmp_path / "small.yaml")]) == 0
    assert "warning" not in capsys.readouterr().out
    model = VideoModel.load(tmp_path / "teacher")
    config = model.config
    assert (config.width, config.height, config.frames, config.guide) == (128, 64, 16, "points")
    with torch.no_grad():
        latents = model.autoencoder.encode(torch.rand(1, 2, 3, 64, 128) * 2 - 1)
        assert bool(model.autoencoder.decode(latents).isfinite().all())


def test_footage_and_scenes_are_recognised_as_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "FRAMES", 3)
    monkeypatch.setattr(inputs, "FILM", (128, 72))
    monkeypatch.setattr(inputs, "TRAIN", 1)
    monkeypatch.setattr(inputs, "HELD_OUT", 1)
    inputs.make_footage(tmp_path)
    tasks = find_scenes([tmp_path / "DL3DV-10K"])
    assert {split_of(task.name, PrepareRecipe().held_out) for task in tasks} == {"train", "heldout"}
    shots = open_footage(tasks[0]).read([0, 2])
    recorded = tmp_path / "recorded" / tasks[0].name
    assert len(tasks) == 2
    assert shots[0].image.shape == (72, 128, 3)
    assert shots[0].camera is not None
    assert sorted(path.name for path in (recorded / "depth").iterdir()) == ["0000.npy", "0001.npy", "0002.npy"]
    for name, folder in inputs.EVALUATED.items():
        inputs.make_evaluated(tmp_path, name)
        (scene,) = find_evaluated(tmp_path / folder)
        assert scene.name == name
        assert scene.dataset == {"mip-360": "mip-360", "tandt": "TNT"}[folder]
        assert len(scene) == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_operations_on_the_page_are_the_counted_ones() -> None:
    count = script("count_reproduce")
    config, recipe = preset("viewcrafter-512-16"), count.VIEWCRAFTER_STUDENT
    with FakeTensorMode():
        counted = [count.count_stage(stage, recipe, config)[0] for stage in count.stages_of(recipe)]
    told = re.search(r"(\d+) in the first stage\s+\(4000 updates\), (\d+) in the second \(5000\)", PAGE)
    assert told is not None
    assert [round(flop / 1e12) for flop in counted] == [int(told[1]), int(told[2])]
    total = sum(flop * stage.steps for flop, stage in zip(counted, count.stages_of(recipe))) * recipe.batch
    assert f"| `distill`, `fvgen` | {total / 1e18:.0f} EFLOP |" in PAGE


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_whole_run_in_small(tmp_path: Path) -> None:
    """Every line of the page, one distillation killed on the way; the paper's three tables come out of it."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "rehearsal.py"), "--work", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "killed 3 processes" in done.stdout
    assert "went on from step" in done.stdout
    tables = (tmp_path / "run" / "tables" / "tables.md").read_text()
    assert [f"Table {number}:" in tables for number in (1, 2, 3)] == [True] * 3
    for row in ("| DepthSplat |", "| MVSplat360 |", "| ViewCrafter |", "| VC+DMD2 |", "| VC+CausVid |", "| Ours |"):
        cells = [line.split("|")[3] for line in tables.splitlines() if row in line]
        assert cells
        assert all(re.search(r"\d\.\d+\**\s*\[", cell) for cell in cells), (row, cells)  # ours before the paper's
    systems = json.loads((tmp_path / "run" / "eval-2x14" / "results.json").read_text())["systems"]
    weights = [system["weights_sha256"] for system in systems.values() if system["kind"] == "model"]
    assert len(weights) == len(set(weights)) == 6  # every method made a student of its own
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    assert "[" not in again.stdout.partition("minutes")[0].partition("added is")[2]  # nothing was run again
