"""The pages in a real browser: draw, generate, watch, reload, cancel; walk. Needs playwright and Chromium."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import viewer_scene
from fvgen.cameras import path_through
from fvgen.pipeline import NovelViewPipeline
from fvgen.reconstruction.flight import render_each
from fvgen.reconstruction.gaussians import write_gaussians
from fvgen.reconstruction.render import splat_torch
from fvgen.scene.formats.transforms_json import read_camera_path, read_transforms_json
from fvgen.viewer.page import write_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
CHROMIUM = Path(os.environ.get("FVGEN_CHROMIUM", "/usr/bin/chromium"))
SOFTWARE_GL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WIDTH, HEIGHT = viewer_scene.SIZE
PATIENCE = 200.0  # seconds; software rendering on a busy machine is slow


@pytest.fixture
def browsers() -> Iterator[tuple[Any, Any]]:
    """Two browsers, each with a renderer of its own: in software one would starve the other."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="PLAYWRIGHT ABSENT: the page was not tried")
    if not CHROMIUM.is_file():
        pytest.skip(f"CHROMIUM ABSENT: {CHROMIUM} (set FVGEN_CHROMIUM): the page was not tried in a browser")
    with sync_api.sync_playwright() as playwright:
        first, second = (playwright.chromium.launch(executable_path=str(CHROMIUM), args=SOFTWARE_GL) for _ in range(2))
        yield first, second
        first.close()
        second.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    from fvgen.outputs import write_outputs

    scene = viewer_scene.scene()
    pipeline = NovelViewPipeline.from_pretrained("none", device="cpu")
    write_outputs(pipeline(scene, path=path_through(scene.cameras, 4, viewer_scene.SIZE)), tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def server(out: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    pytest.importorskip("viser", reason="VISER ABSENT: the page was not tried in a browser")
    command = [sys.executable, "-m", "fvgen", "view", str(out), "--port", "0", "--size", f"{WIDTH}x{HEIGHT}"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    if found is None:
        pytest.fail(process.communicate()[1])
    yield found[0], process
    process.kill()
    process.wait()


class Visitor:
    """One tab of the browser."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_page(viewport={"width": 1000, "height": 640})
        self.page.set_default_timeout(PATIENCE * 1000)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("#fvgen-status")

    def text(self, selector: str) -> str:
        found = self.page.query_selector(selector)
        return found.inner_text() if found else ""

    @property
    def status(self) -> str:
        return self.text("#fvgen-status")

    @property
    def body(self) -> str:
        return self.page.inner_text("body")

    def tab(self, name: str) -> None:
        """Choose a tab; it hears the mouse, not clicks."""
        box = self.page.get_by_role("tab", name=name, exact=True).bounding_box()
        assert box is not None
        self.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def button(self, name: str, times: int = 1) -> None:
        """Click, without waiting for the picture to stand still; with ``times``, as fast as the page takes it."""
        button = self.page.get_by_role("button", name=name, exact=True)
        button.wait_for()
        button.evaluate(f"e => {{ for (let i = 0; i < {times}; i++) e.click(); }}")

    def has_field(self, value: str) -> bool:
        """Whether some field holds this."""
        return self.page.evaluate("v => [...document.querySelectorAll('input')].some(e => e.value === v)", value)

    def note_frames(self) -> None:
        """Note, in the page itself, every number of frames that its label tells."""
        self.page.evaluate("""() => {
            window.noted = [];
            setInterval(() => {
                const found = document.body.innerText.match(/Guide \\| view, (\\d+) of 31 frames/);
                if (found && window.noted.at(-1) !== +found[1]) window.noted.push(+found[1]);
            }, 30);
        }""")

    def noted_frames(self) -> list[int]:
        """The numbers noted."""
        return self.page.evaluate("window.noted")

    def turn(self) -> None:
        """Drag the scene."""
        mouse = self.page.mouse
        mouse.move(420, 150)
        mouse.down()
        mouse.move(470, 175, steps=4)
        mouse.up()

    def shot(self, name: str) -> None:
        folder = os.environ.get("FVGEN_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=f"{folder}/{name}.png", timeout=PATIENCE * 1000)


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


def frames_shown(visitor: Visitor) -> tuple[int, int]:
    found = re.search(r"Guide \| view, (\d+) of (\d+) frames", visitor.body)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def test_draw_generate_watch_reload_and_cancel(browsers: Any, server: tuple[str, Any], out: Path) -> None:
    (browser, second), (address, process) = browsers, server
    results = out.parent / "out-viewer" / "results"
    visitor = Visitor(browser, address)
    until(lambda: "draw a path" in visitor.status, "the scene is built")
    assert frames_shown(visitor) == (7, 7)
    visitor.shot("1-loaded")

    visitor.button("Add key at this view")
    until(lambda: visitor.has_field("1 at frame 0"), "a key")
    visitor.tab("Generate")
    visitor.button("Generate")
    until(lambda: "at least two key frames, this one has 1" in visitor.text("#fvgen-message"), "one key is refused")
    visitor.shot("2-one-key")

    visitor.tab("Path")
    visitor.turn()
    visitor.button("Add key at this view")
    visitor.turn()
    visitor.button("Add key at this view")
    visitor.button("even speed")
    visitor.shot("3-keys")
    visitor.tab("Generate")
    visitor.button("Save the path under this name")
    until(lambda: "Saved." in visitor.text("#fvgen-message"), "the path is saved")
    assert "fvgen generate" in visitor.text("#fvgen-message")
    path = read_camera_path(out.parent / "out-viewer" / "paths" / "view-1.json")
    assert len(path) == 31
    assert float((path.centers[0] - path.centers[30]).norm()) > 0.05

    other = Visitor(second, address)
    visitor.note_frames()
    visitor.button("Generate", times=50)
    until(lambda: "Generating" in visitor.status, "the run starts")
    until(lambda: "Generating" in other.status, "the other browser sees it")
    until(lambda: len(visitor.noted_frames()) > 1 or "Ready" in visitor.status, "frames arrive")
    visitor.shot("4-frames-arrive")
    noted = visitor.noted_frames()
    visitor.page.reload()
    visitor.page.wait_for_selector("#fvgen-status")
    until(lambda: visitor.status == other.status, "the page that was loaded again shows what the other one does")
    visitor.shot("5-loaded-again")
    until(lambda: "Ready" in visitor.status and "Ready" in other.status, "the run ends, for everybody")
    assert len(noted) > 1, "no frames were seen before the end"
    until(lambda: frames_shown(other) == frames_shown(visitor) == (31, 31), "all frames, for everybody")
    assert [p.name for p in results.iterdir()] == ["view-1"]
    visitor.shot("6-done")

    produced = read_transforms_json(results / "view-1" / "transforms.json")[0]
    assert float((produced.world_from_camera - path.world_from_camera).abs().max()) < 1e-5
    assert float((produced.intrinsics - path.intrinsics).abs().max()) < 1e-5
    assert json.loads((results / "view-1" / "summary.json").read_text())["frames"] == 31

    visitor.tab("Generate")
    until(lambda: visitor.has_field("view-2"), "the next free name")
    visitor.button("Generate")
    until(lambda: "denoising" in other.status, "the second run is under way")
    other.tab("Generate")
    other.button("Cancel")
    until(lambda: "Cancelled" in visitor.status, "the run is cancelled")
    assert [p.name for p in results.iterdir()] == ["view-1"]
    visitor.shot("7-cancelled")
    assert visitor.errors == other.errors == []

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors, errors


def test_a_walk_shows_what_our_renderer_does(browsers: Any, out: Path, tmp_path: Path) -> None:
    """The file alone, offline: the first generated frame's view, then around by pointer, keys and the path."""
    scene = viewer_scene.gaussians()
    write_gaussians(tmp_path / "splats.ply", scene)
    write_page(out, tmp_path / "page.html", splats=tmp_path / "splats.ply")
    page = browsers[0].new_page(viewport={"width": 700, "height": 900})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: wrong.append(r.url) if r.url.startswith("http") else None)
    page.goto((tmp_path / "page.html").as_uri())
    canvas = page.locator("#walk")
    page.wait_for_selector("#walk[data-ready]", timeout=PATIENCE * 1000)

    def picture() -> np.ndarray:
        page.wait_for_timeout(1500)
        shot = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
        return np.asarray(shot, dtype=float) / 255

    first = picture()
    height, width = first.shape[:2]
    cameras = read_transforms_json(out / "transforms.json")[0]
    [expected] = render_each(scene, cameras[1].resized(width, height), splat_torch)
    inside = (slice(20, -20), slice(20, -20))  # the canvas has round corners
    error = float(np.square(first - expected.numpy())[inside].mean())
    assert 10 * np.log10(1 / error) > 32
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 150, steps=4)
    page.mouse.up()
    dragged = picture()
    moved = np.abs(dragged[40:-40, 120:-60] - first[40:-40, 60:-120]).mean()
    assert moved < 0.5 * np.abs(dragged - first)[40:-40, 60:-60].mean()  # the picture follows the pointer
    page.keyboard.down("w")
    page.wait_for_timeout(700)
    page.keyboard.up("w")
    assert np.abs(picture() - dragged).mean() > 0.02
    page.click("#fly")
    page.locator("#fly", has_text="Fly the path").wait_for(timeout=PATIENCE * 1000)
    [expected] = render_each(scene, cameras[len(cameras) - 1].resized(width, height), splat_torch)
    assert float(np.square(picture() - expected.numpy())[inside].mean()) < 1e-3
    assert not wrong
