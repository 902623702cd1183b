"""``fvgen evaluate`` from end to end on a small scene: numbers, resuming, tables, and the page in a real browser."""

import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.charts import far_away, frame_plot
from fvgen.cli.main import main
from fvgen.data.footage import find_scenes, open_footage
from fvgen.errors import UserError
from fvgen.evaluation.datasets import find_scenes as find_evaluation_scenes
from fvgen.evaluation.protocols import Split
from fvgen.evaluation.report import frame_order, latex, markdown, title_of
from fvgen.evaluation.scores import mean_of_means, means, region_psnr
from fvgen.evaluation.systems import Model
from fvgen.evaluation.task import Framing, Placing, Task
from pretend_device import PretendedGpu
from scene_copies import Copy, write_index_file

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"
SYSTEMS = ["guide", "completed-guide", "noise <b>", "none"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scene, an index with two splits (one asks for a given view too), and frames of an outside system."""
    place = tmp_path_factory.mktemp("evaluation")
    Copy(DEMO, 21, 128).nerfstudio(place / "study")
    entries = {
        "first": {"scene": "study", "context": [0, 5], "target": [1, 2, 4]},
        "second": {"scene": "study", "context": [6, 10], "target": [6, 8]},
    }
    write_index_file(place / "index.json", entries)
    rng = np.random.default_rng(0)
    for name, entry in entries.items():
        (place / "noise" / name).mkdir(parents=True)
        for i in entry["target"]:
            picture = Image.fromarray(rng.integers(0, 256, (80, 128, 3), dtype=np.uint8))
            picture.save(place / "noise" / name / f"{i:05d}.png")
    return place


def run(place: Path, out: str) -> int:
    scene, index = str(place / "study"), str(place / "index.json")
    arguments = ["evaluate", f"demo={scene}", "--index", index, "--size", "128x80", "--models", "none"]
    arguments += ["--baselines", "guide", "completed-guide", "--frames", f"noise <b>={place / 'noise'}"]
    return main([*arguments, "--metrics", "psnr", "ssim_skimage11", "-o", str(place / out)])


@pytest.fixture(scope="module")
def out(place: Path) -> Path:
    assert run(place, "out") == 0
    return place / "out"


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def frames(out: Path, system: str, split: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(p)) for p in sorted((out / "frames" / system / split).iterdir())])


def test_numbers_are_those_of_the_frames_left_behind(out: Path, results: dict[str, Any]) -> None:
    assert list(results["systems"]) == SYSTEMS
    for system, folder in zip(SYSTEMS, ("guide", "completed-guide", "noise--b-", "none")):
        rows = []
        for split, record in results["splits"].items():
            predicted, truth = (frames(out, name, split).astype(float) / 255 for name in (folder, "truth"))
            error = np.maximum(((predicted - truth) ** 2).mean((1, 2, 3)), 1e-10)
            values = record["systems"][system]["frames"]["psnr"]
            np.testing.assert_allclose(values, -10 * np.log10(error), atol=1e-6)
            asked = [v for v, given in zip(values, record["given"]) if not given]
            rows.append(float(np.mean(asked)))
            assert record["systems"][system]["mean"]["psnr"] == pytest.approx(rows[-1])
        row = results["datasets"]["demo"][system]
        assert row["mean"]["psnr"] == pytest.approx(np.mean(rows))
        assert (row["images"], row["splits"]) == (4, 2)
    assert results["splits"]["second"]["given"] == [True, False]
    # A given view asked for is the photograph itself: counted apart, never in the main figures.
    shown = results["splits"]["second"]["systems"]["none"]["frames"]["psnr"]
    assert shown[0] == 100
    assert (
        results["datasets"]["demo"]["none"]["mean_with_given"]["psnr"]
        > results["datasets"]["demo"]["none"]["mean"]["psnr"]
    )
    # The pipeline without a model is the completed guide, and better than one with black holes.
    none, completed, guide = (
        results["datasets"]["demo"][s]["mean"]["psnr"] for s in ("none", "completed-guide", "guide")
    )
    assert none == completed > guide > 5


@pytest.mark.parametrize("text", ["mini:0", "mini:5000"])
def test_steps_that_a_model_cannot_take_are_refused_at_once(text: str) -> None:
    with pytest.raises(UserError, match=f"`models` {text}: choose 1 to 1000 steps"):
        Model(text, "cpu")


def test_any_size_and_the_photographs_own_are_scored(place: Path, capsys) -> None:
    """A model works at its size; what is scored has the size that was asked for, and with --photo-size a second one."""
    out = place / "sizes"
    arguments = ["evaluate", f"demo={place / 'study'}", "--index", str(place / "index.json"), "--models", "mini"]
    arguments += ["--baselines", "completed-guide", "--metrics", "psnr", "-o", str(out)]
    assert main([*arguments, "--size", "130x90", "--photo-size"]) == 0
    printed, told = capsys.readouterr()
    assert "130x90" in printed
    assert told.startswith("scene 1 of ")
    photo = Image.open(place / "study" / "images" / "frame_00001.png").size
    for folder, size in ((out, (130, 90)), (out / "photo-size", photo)):
        results = json.loads((folder / "results.json").read_text())
        for name, record in results["splits"].items():
            assert tuple(record["size"]) == size
            frame = folder / "frames" / "mini" / name / f"{record['names'][0]}.png"
            assert Image.open(frame).size == size
            assert record["systems"]["mini"]["mean"]["psnr"] > 10
    assert (out / "photo-size" / "index.html").is_file()
    assert "{}x{}".format(*photo) in printed


def test_the_truth_is_the_scenes_own(place: Path, out: Path) -> None:
    expected = [np.asarray(Image.open(place / "study" / "images" / f"frame_{i + 1:05d}.png")) for i in (1, 2, 4)]
    assert np.array_equal(frames(out, "truth", "first"), np.stack(expected))  # already of the scored size


def test_the_record_says_what_the_numbers_rest_on(place: Path, out: Path, results: dict[str, Any]) -> None:
    index = results["index"]
    assert index["sha256"] == hashlib.sha256((out / "index.json").read_bytes()).hexdigest()
    assert index["file_sha256"] == hashlib.sha256((place / "index.json").read_bytes()).hexdigest()
    assert results["poses"]["poses"] == "given"
    assert results["pictures"]["size"] == [128, 80]
    assert "Lanczos" in results["pictures"]["crop"]
    assert "rounded" in results["pictures"]["rounding"]
    assert results["metrics"]["psnr"]["definition"]
    assert results["hardware"]["cpu"]
    assert len(results["software"]["code_sha256"]) == 64
    assert results["splits"]["first"]["names"] == ["frame_00002", "frame_00003", "frame_00005"]
    assert results["splits"]["first"]["systems"]["none"]["seconds"]["render"] > 0
    assert results["splits"]["first"]["systems"]["noise <b>"]["seconds"] == {}


def test_finished_parts_are_not_made_again(place: Path, out: Path, results: dict[str, Any]) -> None:
    """Seconds are measured: had anything been made again, they would not be the same to the last digit."""
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png") if "frames" in path.parts}
    text = (out / "results.json").read_text()
    assert run(place, "out") == 0
    assert (out / "results.json").read_text() == text
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_interrupted_run_goes_on_and_gives_the_same_numbers(
    place: Path, out: Path, results: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    held = place / "noise" / "second"
    held.rename(place / "held")
    assert run(place, "again") == 2
    assert "no such folder" in capsys.readouterr().err
    record = json.loads((place / "again" / "scenes" / "first.json").read_text())
    assert not (place / "again" / "results.json").exists()
    (place / "held").rename(held)
    (place / "again" / "frames" / "guide" / "first" / "frame_00002.png").write_bytes(b"damaged")
    assert run(place, "again") == 0
    done = json.loads((place / "again" / "results.json").read_text())
    kept, made = done["splits"]["first"]["systems"], record["systems"]
    assert kept["none"]["seconds"] == made["none"]["seconds"]
    assert kept["guide"]["seconds"] != made["guide"]["seconds"]  # its damaged frames were made again
    for split in ("first", "second"):
        for system in SYSTEMS:
            one, two = (r["splits"][split]["systems"][system] for r in (results, done))
            assert one["frames"] == two["frames"]
            assert one["frames_sha256"] == two["frames_sha256"]


def test_another_systems_frames_can_be_scored_again_as_outside_ones(
    place: Path, out: Path, results: dict[str, Any]
) -> None:
    arguments = ["evaluate", str(place / "study"), "--index", str(place / "index.json"), "--size", "128x80"]
    arguments += ["--models", "--baselines", "--frames", f"same={out / 'frames' / 'none'}", "--metrics", "psnr"]
    assert main([*arguments, "-o", str(place / "outside")]) == 0
    scored = json.loads((place / "outside" / "results.json").read_text())
    own = results["splits"]["first"]["systems"]["none"]["frames"]["psnr"]
    assert scored["splits"]["first"]["systems"]["same"]["frames"] == {"psnr": own}
    assert "geometry_seconds" not in scored["splits"]["first"]  # nothing asked for it


def test_a_handout_is_the_questions_in_the_chunks_of_others(place: Path) -> None:
    arguments = [
        "evaluate",
        str(place / "study"),
        "--index",
        str(place / "index.json"),
        "--size",
        "128x80",
        "--handout",
    ]
    assert main([*arguments, "-o", str(place / "handout")]) == 0
    asked = json.loads((place / "handout" / "evaluation_index.json").read_text())
    assert asked["first"] == {"context": [0, 4], "target": [1, 2, 3]}
    assert asked["second"] == {"context": [0, 2], "target": [0, 1]}
    assert json.loads((place / "handout" / "test" / "index.json").read_text())["second"] == "000001.torch"
    tasks = {task.name: open_footage(task) for task in find_scenes([place / "handout" / "test"])}
    (scene,) = find_evaluation_scenes(place / "study")
    framing = Framing((128, 80), None)
    for key, rows in (("first", [0, 1, 2, 4, 5]), ("second", [6, 8, 10])):
        assert json.loads((place / "handout" / "frames.json").read_text())[key] == [scene.frames[i].name for i in rows]
        for shot, row in zip(tasks[key].read(range(len(rows))), rows):
            given = scene.read(row)
            camera, (box,) = framing.cameras(given.camera)
            assert torch.equal(shot.image, (framing.picture(given.image, box) * 255).round().byte())
            torch.testing.assert_close(shot.camera.intrinsics, camera.intrinsics, atol=1e-4, rtol=1e-6)
            torch.testing.assert_close(shot.camera.world_from_camera, camera.world_from_camera, atol=1e-5, rtol=1e-6)


def test_tables(out: Path, results: dict[str, Any]) -> None:
    text = (out / "table.md").read_text()
    assert text == markdown(results)
    assert "| demo | none | " in text
    psnr = results["datasets"]["demo"]["completed-guide"]["mean"]["psnr"]
    assert f"**{psnr:.2f}**" in text
    assert "the given views counted" in text
    tex = latex(results)
    assert tex == (out / "table.tex").read_text()
    assert tex.count(r"\\") == 1 + 4
    assert r"\multirow{4}{*}{demo}" in tex
    assert rf"\textbf{{{psnr:.2f}}}" in tex
    for split in ("first", "second"):
        with Image.open(out / "sheets" / f"{split}.png") as sheet:
            assert sheet.size[0] == 128 * 5


def test_region_psnr_and_means() -> None:
    truth = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    predicted = truth.clone()
    predicted[:, :2] = 51  # a fifth: 13.98 dB
    region = torch.zeros(2, 4, 4, dtype=torch.bool)
    region[0, :2] = True
    values = region_psnr(predicted, truth, region)
    assert values[0] == pytest.approx(-10 * np.log10(0.04))
    assert values[1] is None
    assert means({"a": values, "b": [1.0, 3.0]}) == {"a": values[0], "b": 2.0}
    assert means({"b": [1.0, 3.0]}, [False, True]) == {"b": 3.0}
    assert mean_of_means([{"a": 1.0}, {"a": 2.0, "b": None}]) == {"a": 1.5, "b": None}


def test_frames_of_the_page_begin_with_the_worst() -> None:
    assert frame_order([30.0, 10.0, 20.0, None, 25.0], "higher") == [1, 4, 0, 2, 3]
    assert frame_order([0.3, 0.1], "lower") == [0, 1]
    assert sorted(frame_order([1.0] * 56, "one")) == list(range(56))


def test_headings_say_which_lpips() -> None:
    names = ("lpips_vgg_norm", "stlpips_vgg", "stlpips_alex")
    assert [title_of(name) for name in names] == ["LPIPS vgg norm", "ST-LPIPS vgg", "ST-LPIPS alex"]


def test_plots() -> None:
    lines = {"a": [20.0, None, 21.0], "b": [20.5, 20.4, 20.2], "far": [1.0, 1.5, 1.2]}
    assert far_away(lines) == ["far"]
    svg = frame_plot(lines)
    assert svg.count('class="line"') == 3  # a has a gap; far is told in words
    assert "far away: far, 1 to 1.5" in svg
    assert frame_plot({"a": [None, None]}) == ""


def chromium() -> str:
    found = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if found is None:
        pytest.skip("NO CHROMIUM HERE: the page was not looked at in a browser")
    return found


def browse(page: Path, *options: str) -> str:
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", *options]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--window-size=1300,1400", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


PROBE = """
<script>
window.addEventListener("load", () => {
  const seen = {};
  const sections = [...document.querySelectorAll("section.split")];
  seen.splits = sections.map(s => s.dataset.split);
  const compare = sections[0].querySelector(".compare"), range = sections[0].querySelector("input[type=range]");
  const output = sections[0].querySelector("output"), over = sections[0].querySelector("img.over");
  seen.before = [output.textContent, over.src.length, over.naturalWidth];
  const box = compare.getBoundingClientRect();
  compare.setPointerCapture = () => 0;
  compare.dispatchEvent(new PointerEvent("pointerdown", {clientX: box.left + box.width / 4, buttons: 1, pointerId: 1}));
  seen.at = compare.style.getPropertyValue("--at");
  range.value = 1; range.dispatchEvent(new Event("input"));
  seen.after = [output.textContent, over.src.length];
  document.getElementById("order").value = "path";
  document.getElementById("order").dispatchEvent(new Event("change"));
  seen.inOrder = [...document.querySelectorAll("section.split")].map(s => s.dataset.split);
  seen.first = sections.map(s => s.querySelector("output").textContent);
  seen.gallery = [...document.querySelectorAll("#worst b")].map(b => b.textContent);
  const strip = () => [...sections[0].querySelectorAll(".strip figure")].map(f => f.dataset.system);
  seen.folded = strip();
  sections[0].querySelector(".strip details").fill();
  seen.strip = strip();
  seen.lines = sections[0].querySelectorAll("svg .line").length;
  seen.bold = document.querySelectorAll("main b b, td b").length;
  seen.images = [...document.images].every(i => i.naturalWidth > 0 || i.loading === "lazy");
  document.body.append(Object.assign(document.createElement("pre"), {id: "probe", textContent: JSON.stringify(seen)}));
});
</script>
"""


def test_the_page_in_a_browser(out: Path, results: dict[str, Any], tmp_path: Path) -> None:
    """Worst frames come first, the slider and the frame's number move what is shown, nothing is loaded from away."""
    text = (out / "index.html").read_text()
    assert not re.search(r"(src|href)=.?[\"']?(https?:)?//", text)
    probed = tmp_path / "page.html"
    probed.write_text(text.replace("</body>", PROBE + "</body>"))
    dom = browse(probed, "--dump-dom")
    assert 'data-ready="true"' in dom
    seen = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)[1]))
    worst = {
        split: min(v for v in record["systems"]["none"]["frames"]["psnr"])
        for split, record in results["splits"].items()
    }
    assert seen["splits"] == sorted(worst, key=worst.__getitem__)
    assert seen["inOrder"] == ["first", "second"]
    assert seen["at"] == "25%"
    assert seen["before"] != seen["after"]
    assert seen["before"][2] == 128
    numbers = [float(v) for v in seen["gallery"]]
    assert numbers == sorted(numbers)
    assert len(numbers) == 5
    order = ["truth", SYSTEMS[-1], *SYSTEMS[:-1]]  # what the page is about comes first
    assert (seen["folded"], seen["strip"]) == (order[:4], order)
    assert seen["lines"] > 0
    assert seen["bold"] == 0  # names are text, never markup
    assert seen["images"]


FOLDS = """
<script>
window.addEventListener("load", async () => {
  const count = () => ["section.split", "#worst button", "#worst img"].map(s => document.querySelectorAll(s).length);
  const seen = {first: count()}, folds = [...document.querySelectorAll("#worst > details, #splits > details")];
  seen.titles = folds.map(d => d.firstChild.textContent);
  seen.below = document.querySelector("#worst > details").open;
  document.querySelector("#worst > details summary").click();
  await new Promise(done => setTimeout(done, 200));
  seen.opened = count();
  [...document.querySelectorAll("#worst button")].at(-1).click();
  seen.all = count();
  document.body.append(Object.assign(document.createElement("pre"), {id: "probe", textContent: JSON.stringify(seen)}));
});
</script>
"""


def test_a_large_page_begins_with_four_rows_and_four_columns(out: Path, tmp_path: Path) -> None:
    text = (out / "index.html").read_text()
    data = re.search(r'id="data">(.*?)</script>', text, re.S)[1]
    content = json.loads(data)
    content["splits"] = [{**s, "name": f"{s['name']} {i}"} for i in range(5) for s in content["splits"]]
    page = tmp_path / "page.html"
    page.write_text(
        text.replace(data, json.dumps(content).replace("<", "\\u003c")).replace("</body>", FOLDS + "</body>")
    )
    seen = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', browse(page, "--dump-dom"), re.S)[1]))
    assert seen["first"] == [4, 16, 32]
    assert seen["titles"] == ["all 25", "all 10"]
    assert not seen["below"]
    assert seen["opened"] == [4, 25, 50]
    assert seen["all"] == [10, 25, 50]  # to come to the scene of a frame opens it


def test_the_page_can_be_seen(out: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    shutil.copy(out / "index.html", tmp_path / "page.html")
    browse(tmp_path / "page.html", f"--screenshot={picture}")
    with Image.open(picture) as image:
        assert len(set(image.convert("RGB").resize((100, 100)).getdata())) > 500


def test_a_page_has_room_for_so_much(place: Path, out: Path, results: dict[str, Any]) -> None:
    from fvgen.evaluation.report import page
    from fvgen.evaluation.store import Store

    small = page(results, Store(out), 0.0)
    content = json.loads(re.search(r'id="data">(.*?)</script>', small, re.S)[1])
    for split in content["splits"]:
        scores = results["splits"][split["name"]]["systems"]["none"]["frames"]["psnr"]
        assert list(split["images"]) == [str(int(np.argmin(scores)))]  # only the worst frame


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_example_of_the_docs_reaches_what_they_say(tmp_path: Path) -> None:
    arguments = f"evaluate {DEMO} --protocol fvgen-5x14 --size 256x160 --models mini:4 -o {tmp_path / 'evaluation'}"
    assert main(arguments.split()) == 0
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert results["splits"]["demo"]["context"] == [0, 15, 30, 45, 60]
    reached = {name: row["mean"]["psnr"] for name, row in results["datasets"]["scenes"].items()}
    page = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text("utf-8")
    printed = page.partition("prints a table")[2].partition("and writes")[0]
    said = re.findall(r"[(,] ?([a-z:0-9-]+) ([\d.]+) dB", printed)
    assert [system for system, _ in said] == ["guide", "completed-guide", "mini:4"]
    for system, expected in said:
        assert reached[system] == pytest.approx(float(expected), abs=0.05)


@pytest.mark.slow
def test_estimated_cameras_are_aligned_to_the_given_ones(place: Path) -> None:
    index = write_index_file(place / "five.json", {"study": {"context": [0, 5, 10, 15, 20], "target": [3]}})
    Copy(DEMO, 21, 512).nerfstudio(place / "large" / "study")
    arguments = ["evaluate", str(place / "large" / "study"), "--index", str(index), "--poses", "estimated"]
    arguments += ["--models", "--baselines", "completed-guide", "--metrics", "psnr", "--size", "128x80"]
    assert main([*arguments, "-o", str(place / "estimated")]) == 0
    results = json.loads((place / "estimated" / "results.json").read_text())
    placing = {"poses": "estimated", "geometry": "colmap", "weights": None, "device": "cpu", "seed": 0, "depth": "auto"}
    assert results["poses"] == placing
    fit = results["splits"]["study"]["alignment"]
    assert fit["placed"] == 5
    assert fit["rotation_degrees"] < 1
    assert fit["center_error"] < 0.05
    assert 0.95 < fit["focal_ratio"] < 1.05
    assert results["datasets"]["scenes"]["completed-guide"]["mean"]["psnr"] > 15


def test_the_scenes_guide_is_rendered_where_it_is_placed(place: Path) -> None:
    (scene,) = find_evaluation_scenes(place / "study")
    split = Split("study", "study", [0, 5], [1, 2])
    here, there = (Task(split, scene, Framing((128, 80)), Placing()) for _ in range(2))
    assert len(there.scene.points) > 1000
    there.placing = Placing(device="cuda")
    with PretendedGpu(fetch=True) as gpu:
        guide = there.guide
    pictures = [shape for shape in gpu.fetched if shape[:2] == (80, 128)]
    plane = (80, 128)  # of photographs depth; of the others picture, share, coverage and depth, each once
    assert pictures == [plane, *[(80, 128, 3), plane, plane, plane] * 2, plane]
    assert gpu.fetched == pictures
    assert torch.equal(guide.completed, here.guide.completed)
    assert there.geometry.coverage.device == torch.device("cpu")
