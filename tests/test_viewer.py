"""The viewer without a browser: runs, key frames, names, sessions, the server, and the page that is shared."""

import contextlib
import json
import threading
import time
import urllib.request
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import viewer_scene
from fvgen.cameras import Cameras, path_orbit, path_spiral, path_through
from fvgen.cli import main as cli
from fvgen.errors import UserError
from fvgen.pages import duration
from fvgen.pipeline import NovelViewPipeline
from fvgen.progress import track, watched
from fvgen.reconstruction.exports import pack_spz
from fvgen.reconstruction.gaussians import write_gaussians
from fvgen.scene.formats.transforms_json import read_camera_path, read_transforms_json
from fvgen.viewer import keyframes as keys
from fvgen.viewer.app import Latest
from fvgen.viewer.keyframes import load_path, save_path
from fvgen.viewer.page import render_page
from fvgen.viewer.result import Workspace, checked_name, is_result, read_result, shown_whole
from fvgen.viewer.runs import Cancelled, Ending, Phase, Reporter, Runner
from fvgen.viewer.scenery import larger, measured_color, measured_shown
from fvgen.viewer.session import Options, Session, open_session

SIZE = viewer_scene.SIZE


# Runs


def wait_for(report: Reporter, event: threading.Event) -> None:
    while not event.wait(0.002):
        report("waiting", 1, 4)


def test_fifty_clicks_a_second_start_one_run() -> None:
    runner, go, starts = Runner(), threading.Event(), []

    def job(report: Reporter) -> str:
        starts.append(1)
        wait_for(report, go)
        return "all done"

    answers: list[bool] = []
    clicks = [threading.Thread(target=lambda: answers.append(runner.start("generate", job))) for _ in range(50)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    go.set()
    assert runner.wait(5)
    assert (sum(answers), len(starts), runner.status.started) == (1, 1, 1)
    assert (runner.status.phase, runner.status.ending, runner.status.doing) == (Phase.IDLE, Ending.DONE, "all done")
    assert runner.start("generate", lambda report: "again")
    assert runner.wait(5)
    assert runner.status.started == 2


def test_a_cancelled_run_goes_through_all_phases() -> None:
    seen: list[tuple[Phase, str]] = []
    runner = Runner(lambda status: seen.append((status.phase, status.doing)))
    reached: list[str] = []

    def job(report: Reporter) -> str:
        try:
            wait_for(report, threading.Event())
        finally:
            reached.append("cleaned up")
        return "never"

    assert not runner.cancel()
    runner.start("generate", job)
    while runner.status.total == 0:
        time.sleep(0.002)
    assert runner.status.share == 0.25
    assert runner.cancel()
    assert not runner.start("generate", job)
    runner.cancel()
    assert runner.wait(5)
    phases = [phase for i, (phase, _) in enumerate(seen) if i == 0 or seen[i - 1][0] is not phase]
    assert phases == [Phase.RUNNING, Phase.CANCELLING, Phase.IDLE]
    assert (runner.status.ending, runner.status.doing) == (Ending.CANCELLED, "nothing was kept")
    assert reached == ["cleaned up"]


def test_a_cancel_that_comes_too_late_hides_no_result() -> None:
    started, go = threading.Event(), threading.Event()

    def job(report: Reporter) -> str:
        started.set()
        go.wait(5)
        return "written"

    runner = Runner()
    runner.start("generate", job)
    started.wait(5)
    runner.cancel()
    go.set()
    runner.wait(5)
    assert (runner.status.ending, runner.status.doing) == (Ending.DONE, "written")


def test_failures_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> Runner:
        def job(report: Reporter) -> str:
            raise error

        runner = Runner()
        runner.start("scene", job)
        runner.wait(5)
        return runner

    status = fail(UserError("no overlap")).status
    assert (status.phase, status.ending, status.doing) == (Phase.IDLE, Ending.FAILED, "no overlap")
    assert capsys.readouterr().err == ""
    assert "an error of the program" in fail(ZeroDivisionError("bug")).status.doing
    assert "ZeroDivisionError" in capsys.readouterr().err
    runner = Runner()
    runner.close()
    assert not runner.start("scene", lambda report: "")


def test_of_many_previews_the_newest_counts() -> None:
    done: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def work(frame: int) -> None:
        begun.set()
        go.wait(5)
        done.append(frame)

    latest = Latest(work)
    latest.request(0)
    begun.wait(5)
    for frame in range(1, 100):
        latest.request(frame)
    go.set()
    deadline = time.monotonic() + 5
    while len(done) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    latest.close()
    assert done == [0, 99]


def test_progress_can_be_watched_and_ended() -> None:
    told: list[tuple[str, int, int | None]] = []
    with watched(lambda *what: told.append(what)):
        assert list(track([7, 8], "things")) == [7, 8]
    assert told == [("things", 0, 2), ("things", 1, 2), ("things", 2, 2)]
    assert list(track([7], "things")) == [7]
    assert len(told) == 3

    def stop(description: str, done: int, total: int | None) -> None:
        if done == 1:
            raise Cancelled

    seen = []
    with pytest.raises(Cancelled), watched(stop):
        seen.extend(item for item in track(range(5), "things"))
    assert len(seen) <= 1


# Key frames


@pytest.fixture(scope="module")
def scene():
    return viewer_scene.scene()


def drawn(scene, count: int = 3) -> keys.KeyPath:
    """A path with two keys that are no photo's, and more."""
    path = keys.empty_path(SIZE)
    for i in range(count):
        pose = scene.cameras.world_from_camera[i % 3].clone()
        pose[:3, 3] += torch.tensor([0.05 * i, 0.1, -0.2])
        path = keys.added(path, keys.key_camera(pose, 40 + 5 * i, SIZE))
    return path


def test_keys_are_met_exactly_and_the_path_is_as_long_as_it_says(scene) -> None:
    path = drawn(scene)
    assert (path.frames, path.count, len(path.cameras())) == ((0, 15, 30), 31, 31)
    met = path.cameras()[list(path.frames)]
    assert torch.equal(met.world_from_camera, path.keys.world_from_camera)
    assert torch.equal(met.intrinsics, path.keys.intrinsics)
    assert [round(keys.fov_of(path.keys[i]), 9) for i in range(3)] == [40, 45, 50]


def test_through_is_exactly_the_path_through_the_photos(scene) -> None:
    path = keys.preset("through", scene, SIZE)
    true = path_through(scene.cameras, 16, SIZE)
    assert torch.equal(path.cameras().world_from_camera, true.cameras.world_from_camera)
    assert torch.equal(path.cameras().intrinsics, true.cameras.intrinsics)


@pytest.mark.parametrize(("name", "make"), [("orbit", path_orbit), ("spiral", path_spiral)])
def test_presets_follow_their_curves(scene, name: str, make) -> None:
    path = keys.preset(name, scene, SIZE)
    true = make(scene.cameras, scene.points.positions, frames=path.count, size=SIZE).cameras
    size = float((true.centers - true.centers[0]).norm(dim=1).max())
    assert float((path.cameras().centers - true.centers).norm(dim=1).max()) < 0.015 * size
    with pytest.raises(UserError, match="there is no path 'loop'"):
        keys.preset("loop", scene, SIZE)


def test_edits_of_keys(scene) -> None:
    path = drawn(scene, 4)
    centers = path.keys.centers
    assert torch.equal(keys.removed(path, 0).keys.centers, centers[1:])
    assert keys.removed(path, 0).frames == (0, 15, 30)
    assert torch.equal(keys.swapped(path, 0, 2).keys.centers, centers[[2, 1, 0, 3]])
    moved, index = keys.retimed(path, 0, 35)
    assert (moved.frames, index) == ((0, 15, 20, 30), 2)
    assert torch.equal(moved.keys.centers, centers[[1, 2, 0, 3]])
    other = keys.key_camera(torch.eye(4, dtype=torch.float64), 60, SIZE)
    assert torch.equal(keys.changed(path, 1, other).keys.centers[1], torch.zeros(3, dtype=torch.float64))
    wide = keys.with_fov(path, 80, 2)
    assert [round(keys.fov_of(wide.keys[i])) for i in range(4)] == [40, 45, 80, 55]
    assert {round(keys.fov_of(keys.with_fov(path, 33).keys[i]), 6) for i in range(4)} == {33.0}


@pytest.mark.parametrize("count", [4, 5, 17, 46, 300])
def test_more_frames_are_a_slower_walk(scene, count: int) -> None:
    path = keys.with_count(drawn(scene, 4), count)
    assert path.count == len(path.cameras()) == count
    assert [round(3 * f / (count - 1)) for f in path.frames] == [0, 1, 2, 3]


def test_even_speed(scene) -> None:
    path = keys.empty_path(SIZE)
    for x in (0.0, 0.1, 1.0):
        pose = torch.eye(4, dtype=torch.float64)
        pose[0, 3] = x
        path = keys.added(path, keys.key_camera(pose, 50, SIZE))
    even = keys.at_even_speed(keys.with_count(path, 101))
    assert even.frames == (0, 10, 100)
    still = keys.KeyPath(path.keys[[0, 0, 0]], (0, 3, 9), SIZE)
    assert keys.at_even_speed(still).frames == (0, 3, 9)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: keys.retimed(p, 1, 30), "another key is at frame 30"),
        (lambda p: keys.retimed(p, 1, 5000), "5001 frames: a path has 2 to 1000"),
        (lambda p: keys.with_count(p, 2), "2 frames cannot pass through 3 keys"),
        (lambda p: keys.with_count(p, 10**9), "a path has 2 to 1000"),
        (lambda p: keys.removed(p, 3), "there is no key 3"),
        (lambda p: keys.removed(p, -1), "there is no key -1"),
        (lambda p: keys.with_fov(p, 179), "choose 5 to 120 degrees"),
        (lambda p: keys.with_fov(p, float("nan")), "choose 5 to 120 degrees"),
        (lambda p: keys.changed(keys.empty_path(SIZE), 0, p.keys[:1]), "add one first"),
        (lambda p: keys.removed(keys.removed(p, 0), 0).cameras(), "needs at least two key frames, this one has 1"),
        (lambda p: keys.empty_path(SIZE).cameras(), "needs at least two key frames, this one has 0"),
    ],
)
def test_impossible_edits(scene, edit, message: str) -> None:
    with pytest.raises(UserError, match=message):
        edit(drawn(scene))


def same(a: Cameras, b: Cameras, tolerance: float = 1e-5) -> None:
    assert torch.equal(a.sizes, b.sizes)
    torch.testing.assert_close(a.world_from_camera, b.world_from_camera, atol=tolerance, rtol=0)
    torch.testing.assert_close(a.intrinsics, b.intrinsics, atol=tolerance, rtol=0)


def test_a_path_file_is_what_was_drawn_and_can_be_edited_again(scene, tmp_path: Path) -> None:
    path, file = drawn(scene), tmp_path / "path.json"
    save_path(path, file)
    same(read_camera_path(file), path.cameras(), 1e-12)
    again = load_path(file, SIZE, scene.cameras[0])
    assert again.frames == path.frames
    same(again.cameras(), path.cameras(), 1e-12)
    content = json.loads(file.read_text())
    content["frames"][7]["transform_matrix"][0][3] += 0.01  # by another program
    file.write_text(json.dumps(content))
    changed = load_path(file, SIZE, scene.cameras[0])
    assert len(changed) == 31
    same(changed.cameras(), read_camera_path(file), 1e-12)


# The workspace


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/b", "a\\b", "/a", "a.json", " a", "a\n", "-a", "ä", "a" * 65, "a\0", None, 3]
)
def test_no_name_leaves_the_workspace(tmp_path: Path, name: object) -> None:
    with pytest.raises(UserError, match="letters, digits"):
        checked_name(name)
    with pytest.raises(UserError, match="letters, digits"):
        Workspace(tmp_path).result(name)


def test_no_link_leaves_the_workspace_either(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "space")
    assert space.path_file("a-1_B") == tmp_path / "space" / "paths" / "a-1_B.json"
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "results").symlink_to(tmp_path)
    with pytest.raises(UserError, match="link out of the workspace"):
        space.result("a")


# Sessions


@pytest.fixture
def session(scene, tmp_path: Path) -> Session:
    pipeline = NovelViewPipeline.from_pretrained("mini", device="cpu", deferred=True)
    made = Session(scene.photos, pipeline, Workspace(tmp_path / "space"), ["photos"], options=Options(size=SIZE))
    made.scene = scene
    return made


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) if folder.exists() else []


def test_what_is_previewed_is_what_is_rendered(session: Session, scene) -> None:
    """Cameras drawn, written to JSON, and of the produced frames are the same; so is the guide."""
    arrived: list[set[int]] = []
    session.on_change = lambda what: arrived.append(set(session.shown.done)) if what == "frames" else None
    session.edit(lambda path: keys.with_count(drawn(scene), 9))
    previews = [session.preview(i) for i in (0, 3, 8)]
    command = session.save("mine")
    file, out = session.workspace.path_file("mine"), session.workspace.result("first")
    assert command == f"fvgen generate photos --path {file} --size 64x48 --output OUT"
    assert session.generate("first")
    assert session.runner.wait(120)
    assert session.status.ending is Ending.DONE, session.status.doing
    produced = read_transforms_json(out / "transforms.json")[0]
    same(session.path.cameras(), read_camera_path(file))
    same(session.path.cameras(), produced)
    result = read_result(out)
    assert torch.equal(session.shown.frames, result.frames)
    assert all(torch.equal(session.shown.guide[i], p) for i, p in zip((0, 3, 8), previews))
    assert arrived[0] == set()
    assert arrived[-1] == set(range(9))
    same(result.photo_cameras, scene.cameras, 1e-9)
    assert torch.equal(result.positions, scene.points.positions)


def test_model_size_and_steps_are_chosen_and_the_path_stays(session: Session, scene, tmp_path: Path) -> None:
    assert {"mini", "mini-teacher", "none"} <= set(session.models)
    session.edit(lambda path: keys.preset("through", scene, session.size))
    before = session.preview(0)
    session.choose("mini", (96, 64), 2)
    assert session.preview(0).shape == (64, 96, 3) != before.shape
    same(session.path.cameras(), path_through(scene.cameras, 16, (96, 64)).cameras)
    session.edit(lambda path: keys.with_count(path, 5))
    assert "--steps 2 --size 96x64 --output OUT" in session.save("mine")
    assert session.generate("first")
    assert session.runner.wait(120)
    summary = json.loads((session.workspace.result("first") / "summary.json").read_text())
    assert (summary["steps"], summary["size"]) == (2, [96, 64])
    session.choose("none", "model")
    assert session.size == session.pipeline.frame_size(scene.photos, "model")
    assert session.pipeline.config is None
    assert "--model none --size" in session.save("mine")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (("/etc", None, None), "model /etc: choose one of mini, "),
        (("mini", (63, 48), None), "width and height must be even"),
        (("mini", (640, 480), None), "larger than the photos"),
        (("mini-teacher", None, 100_000), "choose 1 to "),
        (("none", None, 4), "without a model there are none"),
    ],
)
def test_choices_that_are_none_change_nothing(session: Session, choice, message: str) -> None:
    before = session.pipeline, session.size, session.options
    with pytest.raises(UserError, match=message):
        session.choose(*choice)
    assert (session.pipeline, session.size, session.options) == before


def test_a_cancelled_generation_leaves_nothing(session: Session, scene) -> None:
    session.edit(lambda path: drawn(scene))
    denoising = threading.Event()
    session.on_change = lambda what: denoising.set() if "denoising" in session.status.doing else None
    assert session.generate("gone")
    assert not session.generate("other")
    assert denoising.wait(60)
    assert session.cancel()
    assert session.runner.wait(60)
    assert (session.status.ending, session.shown) == (Ending.CANCELLED, None)
    assert files_in(session.workspace.folder) == []


def test_refused_runs(session: Session, scene) -> None:
    for path in (keys.empty_path(SIZE), keys.removed(keys.removed(drawn(scene), 0), 0)):
        session.path = path
        with pytest.raises(UserError, match="at least two key frames"):
            session.generate("one")
        with pytest.raises(UserError, match="at least two key frames"):
            session.save("one")
    session.path = drawn(scene)
    with pytest.raises(UserError, match="letters, digits"):
        session.generate("../one")
    with pytest.raises(UserError, match="letters, digits"):
        session.load("/etc/passwd")
    with pytest.raises(UserError, match="choose a whole number"):
        session.generate("one", seed=-1)
    session.workspace.result("there").mkdir(parents=True)
    with pytest.raises(UserError, match="there is a result there already"):
        session.generate("there")
    session.scene = None
    with pytest.raises(UserError, match="not there yet"):
        session.generate("one")
    assert session.status.started == 0


def test_estimated_cameras_are_kept_for_the_path(session: Session, scene, tmp_path: Path) -> None:
    session.scene = replace(scene, geometry="colmap")
    session.path = drawn(scene)
    listed = tmp_path / "space" / "scene" / "transforms_photos.json"
    for name in ("one", "two"):
        assert f"fvgen generate {listed} --path" in session.save(name)
    same(read_transforms_json(listed)[0], scene.cameras, 1e-9)
    moved = scene.cameras.world_from_camera.clone()
    moved[:, 0, 3] += 1
    session.scene = replace(
        scene, geometry="colmap", cameras=Cameras(moved, scene.cameras.intrinsics, scene.cameras.sizes)
    )
    assert str(tmp_path / "space" / "scene-2" / "transforms_photos.json") in session.save("three")


def test_frames_come_once_each_and_are_the_views(scene) -> None:
    """Also where the path needs photos put before and after it, and windows in two levels."""
    pipeline = NovelViewPipeline.from_pretrained("mini", device="cpu")
    path = keys.with_count(drawn(scene), 20).cameras()
    from fvgen.cameras import follow

    numbers: list[int] = []
    pictures: dict[int, torch.Tensor] = {}
    guides: list[int] = []

    def on_frames(which: list[int], frames: torch.Tensor) -> None:
        numbers.extend(which)
        pictures.update(zip(which, frames))

    wanted = follow(path, scene.cameras)
    views = pipeline(
        scene, path=wanted, callback_on_frames=on_frames, callback_on_guide=lambda _, which: guides.extend(which)
    )
    assert sorted(numbers) == sorted(guides) == list(range(20))
    assert all(torch.equal(pictures[i], views.frames[i]) for i in range(20))


# Results and the page that is shared


@pytest.fixture(scope="module")
def out(scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result without a model."""
    from fvgen.outputs import write_outputs

    photos = replace(scene.photos, names=["a.png", "b<script>.png", "c&d.png"])
    scene = replace(scene, photos=photos)
    folder = tmp_path_factory.mktemp("results") / "out"
    pipeline = NovelViewPipeline.from_pretrained("none", device="cpu")
    write_outputs(pipeline(scene, path=path_through(scene.cameras, 4, SIZE)), folder)
    return folder


def test_a_result_is_opened(out: Path) -> None:
    assert is_result(out)
    session = open_session([str(out)], options=Options(size=SIZE), model="none", device="cpu")
    assert session.opened is not None
    assert [p for p in session.opened.photo if p] == ["a.png", "b<script>.png", "c&d.png"]
    assert session.workspace.folder == out.parent / "out-viewer"
    assert session.source == [str(out / "transforms_photos.json")]
    session.edit(lambda path: keys.added(path, keys.key_camera(torch.eye(4, dtype=torch.float64), 50, SIZE)))
    assert session.preview(0).float().mean() > 40  # the points of the file, before the scene is built
    assert files_in(session.workspace.folder) == []


def test_the_scene_of_a_result_is_not_built_again(out: Path, scene, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session([str(out)], options=Options(size=SIZE), model="none", device="cpu")
    monkeypatch.setattr(session.pipeline, "scene", lambda *_, **__: pytest.fail("the scene was built again"))
    assert session.build()
    assert session.runner.wait(30)
    assert session.status.ending is Ending.DONE
    for own, kept in zip(scene.depths, session.ready().depths):
        assert torch.equal(own.depth, kept.depth)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "summary.json").unlink(), "is incomplete: summary.json is missing"),
        (lambda f: (f / "guide.mp4").unlink(), "is incomplete: guide.mp4 is missing"),
        (lambda f: (f / "transforms_photos.json").unlink(), "is incomplete: transforms_photos.json is missing"),
        (lambda f: (f / "images" / "00002.png").unlink(), "is incomplete: there is no image"),
        (lambda f: (f / "coverage" / "00002.png").unlink(), "is incomplete: there is no image"),
        (lambda f: (f / "images" / "00002.png").write_bytes(b"\x89PNG"), "damaged or cut off"),
        (lambda f: (f / "points.ply").write_bytes(b"ply\n"), "points.ply: not a PLY file"),
        (lambda f: (f / "summary.json").write_text("["), "not a JSON file"),
        (lambda f: (f / "guide.mp4").write_bytes((f / "guide.mp4").read_bytes()[:300]), "guide.mp4: "),
    ],
)
@pytest.mark.parametrize("command", ["view", "page"])
def test_an_incomplete_result_is_one_line(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil, message: str, command: str
) -> None:
    import shutil

    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    spoil(folder)
    if command == "view":
        pytest.importorskip("viser")
        code = cli.main(["view", str(folder), "--port", "0"])
    else:
        code = cli.main(["page", str(folder), "-o", str(tmp_path / "r.html")])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


class Page(HTMLParser):
    """Every tag with its attributes, the text of the page, and the data in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        (self.scripts if self.tags and self.tags[-1][0] == "script" else self.words).append(data)


def test_the_page_needs_nothing_else_and_escapes_all(out: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    assert cli.main(["page", str(out), "-o", str(file), "--title", "<img src=x onerror=alert(1)> & more"]) == 0
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    links = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "data", "action", "srcset") and v]
    assert links
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert [a.get("type") for tag, a in page.tags if tag == "script"] == ["application/json", None]
    assert not any(key.startswith("on") for _, a in page.tags for key in a)
    assert not any(a.get("src") == "x" for _, a in page.tags)
    assert page.words.count("<img src=x onerror=alert(1)> & more") == 2
    assert page.words.count("b<script>.png") == 2  # the caption, and the title in the map
    assert "c&d.png" in page.words
    data = json.loads(page.scripts[0])
    assert [f["number"] for f in data["frames"]] == list(range(7))
    assert [f["photo"] for f in data["frames"]] == ["a.png", None, None, "b<script>.png", None, None, "c&d.png"]
    assert data["rate"] == pytest.approx(10)
    assert [a["id"] for tag, a in page.tags if tag == "polygon" and a.get("id")] == ["here"]
    assert "default-src 'none'" in text


def test_the_page_begins_with_a_generated_frame_and_tells_times_as_one_reads_them(out: Path) -> None:
    result = read_result(out)
    summary = {**result.summary, "seconds": {"load": 0.5, "total": 130.0}}
    text = render_page(replace(result, summary=summary), 10, "t", 12)
    data = json.loads(Page(text).scripts[0])
    assert data["frames"][data["first"]]["photo"] is None
    assert "show(data.first)" in text
    assert "time <b>2 min 10 s</b>" in text
    assert "<dt>time</dt><dd>load 0.5 s, total 2 min 10 s</dd>" in text
    only_photos = render_page(replace(result, photo=["a.png"] * len(result.photo)), 10, "t", 12)
    assert json.loads(Page(only_photos).scripts[0])["first"] == 0
    assert [duration(s) for s in (0.123, 59.94, 59.96, 3599.6, 3900, None)] == [
        *("0.123 s", "59.9 s", "1 min 0 s", "1 h 0 min", "1 h 5 min", None)
    ]


def test_the_page_has_a_scene_to_walk_through(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import base64

    file, ply = tmp_path / "r.html", tmp_path / "splats.ply"
    gaussians = viewer_scene.gaussians()
    write_gaussians(ply, gaussians)
    assert cli.main(["page", str(out), "-o", str(file), "--splats", str(ply)]) == 0
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert "http://" not in text
    assert "https://" not in text
    kinds = [a.get("type") for tag, a in page.tags if tag == "script"]
    assert kinds == ["application/json", None, "application/octet-stream", "application/json", None]
    assert "worker-src blob:" in text
    scripts = [text for text in page.scripts if text.strip()]
    assert base64.b64decode(scripts[2]) == pack_spz(gaussians)
    path, cameras = json.loads(scripts[3]), read_result(out).cameras
    assert (path["first"], path["rate"], len(path["frames"])) == (1, pytest.approx(10), 7)
    assert path["aspect"] == pytest.approx(SIZE[0] / SIZE[1])
    frame, pose, k = path["frames"][2], cameras.world_from_camera[2], cameras.intrinsics[2]
    for at, column in ((0, 3), (3, 2), (6, 1)):  # place, ahead, down, with y up
        x, y, z = pose[:3, column].tolist()
        assert frame[at : at + 3] == pytest.approx([x, -y, -z], abs=1e-6)
    lens = [k[0, 0] / SIZE[0], k[1, 1] / SIZE[1], k[0, 2] / SIZE[0], k[1, 2] / SIZE[1]]
    assert frame[9:] == pytest.approx([float(share) for share in lens], abs=1e-6)
    capsys.readouterr()
    write_gaussians(ply, gaussians[:0])
    for bad, line in ((ply, f"--splats {ply}: no Gaussians in it"), (tmp_path / "no.ply", "no.ply: no such file")):
        assert cli.main(["page", str(out), "-o", str(tmp_path / "s.html"), "--splats", str(bad)]) == 2
        assert line in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.html", "splats.ply"]


def test_what_is_measured_is_told(out: Path, tmp_path: Path, scene) -> None:
    result = read_result(out)
    told = result.summary["measured"]
    assert set(shown_whole(result).measured) == set(range(len(result.frames)))
    page = render_page(result, 10, "title", 12)
    assert f"{100 * told['mean']:.0f} % of the frames; least {100 * told['least']:.0f} %, frame {told['frame']}" in page
    result.summary["measured"] = "no"  # of another program, or older
    assert shown_whole(result).measured == {}
    assert "% measured" not in render_page(result, 10, "title", 12)
    colors = [measured_color(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert [green for _, green, _ in colors[:3]] == sorted({green for _, green, _ in colors[:3]})
    assert [red for red, _, _ in colors[2:]] == sorted({red for red, _, _ in colors[2:]}, reverse=True)
    assert measured_color(None) == measured_color(1.0)


def test_the_page_shows_the_frames(out: Path) -> None:
    import base64
    import io

    import numpy as np
    from PIL import Image

    result = read_result(out)
    data = json.loads(Page(render_page(result, 10, "t", 12)).scripts[0])
    for i, frame in enumerate(data["frames"]):
        with Image.open(io.BytesIO(base64.b64decode(frame["view"].split(",")[1]))) as image:
            error = np.asarray(image, dtype=float) - result.frames[i].numpy()
        assert np.abs(error).mean() < 4
    few = render_page(result, 10, "t", 0.01)
    assert "Every" in few
    assert len(json.loads(Page(few).scripts[0])["frames"]) < 7


def test_the_map_shows_cameras_where_they_stand(out: Path) -> None:
    """The wall is up on the page, the photos below it, from left to right."""
    from fvgen.viewer.page import HEIGHT, WIDTH, Overhead

    result = read_result(out)
    overhead = Overhead(result)
    places = overhead.flat(result.photo_cameras.centers)
    assert (places[1:, 0] > places[:-1, 0]).all()
    assert float(overhead.flat(result.positions)[:, 1].max()) < float(places[:, 1].min())
    assert (places >= 0).all()
    assert (places <= torch.tensor([WIDTH, HEIGHT])).all()
    triangle = [tuple(map(float, p.split(","))) for p in overhead.frustum(result.cameras[:1]).split()]
    assert triangle[0][1] > max(triangle[1][1], triangle[2][1])  # it looks towards the wall


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("page nothing -o r.html", "nothing: no such folder; name what fvgen generate wrote"),
        ("page . -o r.html", ". is incomplete: summary.json is missing; run fvgen generate again"),
        ("page . -o .", "--output .: a folder; name a file"),
        ("page . -o taken.html", "--output taken.html is there already; choose another, or add --overwrite"),
        ("page . -o r.html --megabytes 0", "--megabytes 0: choose 0.5 to 500"),
        ("view", "nothing to view: name what fvgen generate wrote, or photos"),
        ("view . --fps 0", "--fps 0: choose a number above 0 and at most 1000"),
        ("view . --size 7", "--size 7: write WIDTHxHEIGHT in pixels, such as 1024x640"),
        ("view . --splats no.ply", "--splats no.ply: there is no such file"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.html").write_text("")
    assert cli.main(arguments.split()) == 2
    assert capsys.readouterr().err == f"fvgen: error: {line}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["taken.html"]


# The server


def test_without_viser_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "viser", None)
    assert cli.main(["view", str(out)]) == 2
    line = 'fvgen: error: fvgen view needs the package viser: pip install "fvgen[viewer]"\n'
    assert capsys.readouterr().err == line


@pytest.fixture
def page(session: Session):
    pytest.importorskip("viser")
    from fvgen.viewer.app import Page as Viewer

    viewer = Viewer(session, "127.0.0.1", 0)
    yield viewer
    viewer.close()


def test_a_taken_port_is_one_line(page, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = page.server.get_port()
    assert cli.main(["view", str(out), "--port", str(port)]) == 2
    line = f"fvgen: error: port {port} on 127.0.0.1 is taken: end the other server or choose another --port\n"
    assert capsys.readouterr().err == line
    assert cli.main(["view", str(out), "--port", "70000"]) == 2
    assert cli.main(["view", str(out), "--host", "no.such.host.invalid", "--port", "0"]) == 2
    assert cli.main(["view", str(out), "--host", "192.0.2.1", "--port", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_the_page_is_served_on_this_machine_alone(page) -> None:
    with urllib.request.urlopen(page.address, timeout=10) as answer:
        assert b"<html" in answer.read()
    sockets = page.server._websock_server
    assert page.address == f"http://127.0.0.1:{page.server.get_port()}"
    assert sockets._host == "127.0.0.1"
    assert page.server.request_share_url() is None  # and opens no tunnel
    assert page.server._share_tunnel is None


@pytest.mark.parametrize(
    ("origin", "heard"),
    [
        (None, True),
        ("http://127.0.0.1:{port}", True),
        ("http://localhost:{port}", True),
        ("http://evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("null", False),
    ],
)
def test_pages_of_other_sites_are_turned_away(page, origin: str | None, heard: bool) -> None:
    import viser
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    port = page.server.get_port()
    origin = None if origin is None else origin.format(port=port)
    protocol = f"viser-v{viser.__version__}"
    with connect(f"ws://127.0.0.1:{port}", origin=origin, subprotocols=[protocol], max_size=None) as client:
        if heard:
            assert len(client.recv(timeout=20)) > 0
        else:
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=20)


def until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_controls_show_the_session_and_edit_it(page, session: Session, scene) -> None:
    controls = page.controls
    event = SimpleNamespace(client=SimpleNamespace(camera=SimpleNamespace(wxyz=(1, 0, 0, 0), position=(0, 0, -0.5))))
    session.on_change("scene")
    controls.path._desk.answer(controls.path._add)(event)
    until(lambda: controls.path._key.value == "1 at frame 0")
    controls._run._desk.answer(lambda e: controls._run._generate())(event)
    message = controls.path._desk._message
    assert "a path needs at least two key frames, this one has 1" in message.content
    assert session.status.started == 0
    controls.path._desk.answer(lambda e: controls.path._preset("through"))(event)
    until(lambda: controls.path._count.value == 31)
    assert controls.path._key.options == ("1 at frame 0", "2 at frame 15", "3 at frame 30")
    until(lambda: controls.path._preview.image.mean() > 40)
    controls.path._desk.answer(lambda e: controls.path._retime(15))(event)
    assert "another key is at frame 15" in message.content
    controls._run._name.value = "<b>"
    controls._run._desk.answer(lambda e: controls._run._generate())(event)
    assert "a name has 1 to 64 letters" in message.content
    until(lambda: "Ready" in controls._status._line.content)


def visitor(page) -> SimpleNamespace:
    """What a click brings: a browser that notes where it was put and what it was sent."""
    client = SimpleNamespace(camera=SimpleNamespace(), sent=[], gui=page.server.gui, atomic=contextlib.nullcontext)
    client.send_file_download = lambda name, content, save_immediately: client.sent.append((name, content))
    return SimpleNamespace(client=client)


def test_a_path_is_played_and_the_browser_that_looks_through_it_flies_along(page, session: Session, scene) -> None:
    panel, event = page.controls.path, visitor(page)
    panel._desk.answer(lambda e: panel.player._press("play", e.client))(event)
    assert "nothing to play" in panel._desk._message.content
    panel.player._rate = 200.0
    panel._through.value = True
    panel._desk.answer(lambda e: panel._preset("through"))(event)
    until(lambda: panel._count.value == 31)
    panel.player._press("play", event.client)
    until(lambda: panel._time.value == 30)
    until(panel.player._end.is_set)
    at = torch.from_numpy(event.client.camera.position) + page.scenery.origin
    torch.testing.assert_close(at, session.path.cameras().centers[30])
    panel.player._press("loop", event.client)
    seen = set()
    until(lambda: seen.add(panel._time.value) or (30 in seen and len(seen) > 3 and panel._time.value < 15))
    panel.player._press("stop", event.client)
    assert panel.player._end.is_set()


def test_a_result_is_played_seen_by_coverage_and_downloaded(scene, out: Path) -> None:
    pytest.importorskip("viser")
    from fvgen.viewer.app import Page as Viewer

    viewer = Viewer(open_session([str(out)], options=Options(size=SIZE), model="none", device="cpu"), "127.0.0.1", 0)
    try:
        panel, event, shown = viewer.controls._result, visitor(viewer), viewer.session.shown
        until(lambda: "7 of 7 frames" in panel._pictures.label)
        panel.player._rate = 100.0
        panel.player._press("play", event.client)
        until(lambda: panel.player._end.is_set() and panel._time.value == 6)
        panel._show(1)
        panel._switch_coverage()
        until(lambda: panel._pictures.label.startswith("Red: made up"))
        panel._more("large", event.client)
        expected = larger(measured_shown(shown.frames[1], shown.coverage[1]), 860)
        until(lambda: np.array_equal(panel._pictures.image, expected))
        assert 0 < shown.coverage[1].float().mean() < 1
        panel._more("download the video", event.client)
        assert event.client.sent == [("out.mp4", (out / "views.mp4").read_bytes())]
        shown.video = None
        panel._desk.answer(lambda e: panel._more("download the video", e.client))(event)
        assert "there is no video yet" in panel._desk._message.content
    finally:
        viewer.close()


def test_what_is_not_measured_is_red() -> None:
    picture, coverage = torch.full((2, 2, 3), 100, dtype=torch.uint8), torch.tensor([[True, False], [False, True]])
    shown = measured_shown(picture, coverage)
    assert torch.equal(shown[coverage], picture[coverage])
    red, green, blue = shown[0, 1].tolist()
    assert red > 150 > 80 > max(green, blue)


def test_a_path_is_cleared_only_after_a_question(page, session: Session, scene) -> None:
    panel, event, gui = page.controls.path, visitor(page), page.server.gui
    session.edit(lambda path: drawn(scene))
    for answer, left in (("Keep", 3), ("Clear", 0)):
        panel._more(SimpleNamespace(client=event.client, target=SimpleNamespace(value="clear")))
        assert len(session.path) == 3
        [dialog] = gui._modal_handle_from_uuid.values()
        [button] = [child for child in dialog._children.values() if getattr(child, "label", "") == answer]
        [press] = button._impl.update_cb
        press(event)
        assert dialog.closed
        assert len(session.path) == left


def test_photos_are_there_before_the_scene_and_frusta_take_their_size_and_opacity(page, session: Session) -> None:
    scenery = page.scenery
    photos = scenery._nodes["photos"]
    assert len(photos) == 3
    assert len({tuple(node.position) for node in photos}) == 3
    assert all(node.image.shape[2] == 3 for node in photos)
    before = photos[0].scale
    scenery.frustum_size(0.5)
    assert photos[0].scale == pytest.approx(before / 2)
    scenery.opacity(0.25)
    assert all((node.image[..., 3] == 64).all() for node in photos)
    session.on_change("scene")
    until(lambda: len(scenery._nodes.get("points", [])) == 1)  # drawn after the photos
    again = scenery._nodes["photos"][0]
    assert again.scale == pytest.approx(0.5 * 0.12 * scenery.unit)
    assert again.image.shape[2] == 4
    scenery.opacity(0.0)
    assert again.image is None


def test_the_page_takes_model_size_and_steps_at_generate(page, session: Session, scene) -> None:
    panel, event = page.controls._run, visitor(page)
    session.edit(lambda path: drawn(scene))
    panel._size.value = (4000, 3000)
    panel._desk.answer(lambda e: panel._generate())(event)
    assert "larger than the photos" in panel._desk._message.content
    assert (session.status.started, session.size) == (0, SIZE)
    panel._fill_size("as the model")
    assert panel._size.value == session.size == session.pipeline.frame_size(scene.photos, "model")
    panel._size.value, panel._model.value, panel._steps.value = (96, 64), "none", 0
    panel._generate()
    assert session.runner.wait(60)
    assert session.shown.frames.shape[1:3] == (64, 96)
    assert session.pipeline.name == "none"


def test_splats_have_the_covariances_of_their_axes(page, session: Session, tmp_path: Path) -> None:
    import math

    from fvgen.reconstruction.gaussians import Gaussians
    from fvgen.viewer.scenery import covariances

    half = math.sqrt(0.5)
    gaussians = Gaussians(
        means=torch.zeros(2, 3),
        log_scales=torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]).log(),
        quaternions=torch.tensor([[2.0, 0, 0, 0], [half, 0, 0, half]]),  # none, and a quarter turn about z
        opacity_logits=torch.zeros(2),
        sh=torch.zeros(2, 1, 3),
    )
    expected = torch.stack([torch.diag(torch.tensor([1.0, 4, 9])), torch.diag(torch.tensor([4.0, 1, 9]))])
    torch.testing.assert_close(covariances(gaussians), expected)
    page.scenery.splats(gaussians)
    page.scenery.show("splats", False)
    assert not page.scenery._nodes["splats"][0].visible


def test_a_world_far_from_its_origin_is_drawn_about_the_photos(page, session: Session) -> None:
    from fvgen.cameras.alignment import Similarity
    from fvgen.reconstruction.gaussians import Gaussians

    scenery, cloud, cameras = page.scenery, viewer_scene.wall(100), viewer_scene.cameras()
    far = Similarity(1.0, torch.eye(3, dtype=torch.float64), torch.tensor([4.1e6, 6.3e5, 4.8e6]).double())
    there = far.cameras(cameras)
    scales, half = torch.zeros(100, 3), torch.zeros(100)
    splats = Gaussians(far.points(cloud.positions.double()), scales, torch.ones(100, 4), half, torch.zeros(100, 1, 3))
    scenery.splats(splats)  # before it is known where the photos are
    scenery.place(there, far.points(cloud.positions.double()))
    scenery.points(far.points(cloud.positions.double()), cloud.colors)
    scenery.photos(there, [torch.zeros(8, 8, 3, dtype=torch.uint8)] * 3)
    middle = cameras.centers.mean(0).numpy()
    expected = cloud.positions.numpy() - middle
    assert np.abs(scenery._nodes["points"][0].points - expected).max() < 1e-5
    assert np.abs(scenery._nodes["splats"][0].centers - expected).max() < 1e-5
    place = scenery._nodes["photos"][1].position
    assert np.abs(np.asarray(place) - (cameras.centers[1].numpy() - middle)).max() < 1e-5
    pose = scenery.pose_of(SimpleNamespace(wxyz=np.array([1.0, 0, 0, 0]), position=np.asarray(place)))
    assert np.abs(pose[:3, 3].numpy() - there.centers[1].numpy()).max() < 1e-5


def test_a_ply_that_holds_no_splats_is_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("viser")
    arguments = ["view", str(out), "--port", "0", "--splats", str(out / "points.ply"), "--model", "none"]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert "a point cloud, not 3D Gaussians" in error
    assert error.count("\n") == 1
