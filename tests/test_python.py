"""What ``docs/python.md`` shows of the packages' public names, run on two small photographs with the packaged model."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

from fvgen import NovelViewPipeline, NovelViews, Scene, UserError, load_photos

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "python.md"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two photographs of 128x80."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("00.jpg", "01.jpg"):
        Image.open(REPOSITORY / "examples" / "demo" / "photos" / name).resize((128, 80)).save(folder / name, quality=95)
    return folder


@pytest.fixture(scope="module")
def pipeline() -> NovelViewPipeline:
    return NovelViewPipeline.from_pretrained("mini")


@pytest.fixture(scope="module")
def scene(photos: Path, pipeline: NovelViewPipeline) -> Scene:
    return pipeline.scene(load_photos([photos]))


@pytest.mark.parametrize("package", ["", ".data", ".distillation", ".evaluation", ".reconstruction"])
def test_every_exported_name_is_there_and_documented(package: str) -> None:
    module = import_module("fvgen" + package)
    assert module.__all__ == sorted(module.__all__, key=lambda n: (not n[0].isupper(), n))
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_the_example_of_the_readme_runs(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["views"].frames.shape == (8, 80, 128, 3)
    assert (tmp_path / "scene" / "views.mp4").is_file()


def test_the_notebook_runs_cell_by_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples" / "demo" / "photos").mkdir(parents=True)
    for photo in ("examples/demo/photos/00.jpg", "examples/demo/photos/01.jpg"):
        Image.open(REPOSITORY / photo).resize((256, 160)).save(tmp_path / photo, quality=95)
    monkeypatch.chdir(tmp_path)
    notebook, names = json.loads((REPOSITORY / "examples" / "quickstart.ipynb").read_text("utf-8")), dict[str, object]()
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), "committed without outputs"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["frames"].shape == (9, 160, 256, 3)
    assert (tmp_path / "notebook-output" / "views.mp4").is_file()


def test_the_site_has_no_dead_link_and_names_every_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    run = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    built, listed = (
        {page.stem for page in (tmp_path / "site").glob("*.html")},
        (tmp_path / "site" / "llms.txt").read_text("utf-8"),
    )
    assert {Path(page).stem for page in pages} <= built
    assert pages == set(re.findall(r"\]\((.*?)\)", listed))
    settings = (REPOSITORY / "mkdocs.yml").read_text("utf-8")
    assert all(f"- {page}" in settings for page in pages), "every page is in the navigation"


def test_the_documented_examples_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    views, guide, completed = names["views"], names["guide"], names["completed"]
    assert views.frames.shape == (8, 80, 128, 3)
    assert views.frames.dtype == torch.uint8
    assert views.guide.coverage.shape == (8, 80, 128)
    assert views.cameras.world_from_camera.shape == (8, 4, 4)
    assert views.scene.depths[0].depth.ndim == 2
    assert completed.pictures.shape[0] == len(guide) == 4
    assert names["frames"].shape == (4, 80, 128, 3)
    assert names["gaussians"].means.shape[1:] == (3,)
    assert names["gaussians"].sh.shape[2:] == (3,)
    assert set(names["results"]["systems"]) == {"completed-guide", "mini:2"}
    assert names["pair"].frames.shape == (4, 48, 64, 3)
    soft = torch.sigmoid(-names["logit"]).view(2, 1, 1, 1, 1) * (names["fake_x0"] - names["real_x0"])
    torch.testing.assert_close(names["x0"].grad, soft / soft.numel())


def test_two_small_photographs_become_views(photos: Path, pipeline: NovelViewPipeline) -> None:
    views = pipeline(photos, frames=4, steps=2)
    assert isinstance(views, NovelViews)
    assert views.photo == [0, None, None, 1]
    ends = torch.stack(views.scene.photos.images)
    assert (views.frames[[0, 3]].float() - ends.float()).abs().mean() < 4  # where photographs are, they are seen
    assert views.frames[1:3].float().std() > 20
    assert (views.settings.model, views.settings.steps, views.settings.seed) == ("mini", 2, 0)


def test_a_generator_gives_its_seeds_noise(scene: Scene, pipeline: NovelViewPipeline) -> None:
    def frames(**given: object) -> torch.Tensor:
        return pipeline(scene, frames=3, steps=1, **given).frames

    assert torch.equal(frames(seed=3), frames(generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(frames(seed=3), frames(seed=4))


def test_a_saved_model_is_the_same_model(scene: Scene, pipeline: NovelViewPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    again = NovelViewPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(again(scene, frames=3, steps=1).frames, pipeline(scene, frames=3, steps=1).frames)
    with pytest.raises(UserError, match="no model to save"):
        NovelViewPipeline.from_pretrained("none").save_pretrained(tmp_path / "nothing")


def test_progress_bars_are_told_what_to_do(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = NovelViewPipeline.from_pretrained("none")
    pipeline(scene, frames=3)
    assert capsys.readouterr().err == ""  # this is no terminal
    pipeline.set_progress_bar_config(disable=False, delay=0)
    pipeline(scene, frames=3)
    assert "views" in capsys.readouterr().err
    pipeline.set_progress_bar_config(disable=True)
    pipeline(scene, frames=3)
    assert capsys.readouterr().err == ""


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download of a public model needs: its list of files, and the files."""

    folder: Path
    commit = "0" * 40

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        place = re.fullmatch(r"/someone/place/resolve/[^/]+/(.+)", self.path)
        files = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        names = {p.relative_to(self.folder).as_posix(): p.stat().st_size for p in files}
        if self.path.startswith("/api/models/someone/place/tree/"):
            tree = [{"type": "file", "path": n, "size": size, "oid": f"{size:040x}"} for n, size in names.items()]
            self.send(json.dumps(tree).encode(), "application/json", body)
        elif self.path.startswith("/api/models/someone/place"):
            facts = {"id": "someone/place", "sha": self.commit, "siblings": [{"rfilename": n} for n in names]}
            self.send(json.dumps(facts).encode(), "application/json", body)
        elif place and (self.folder / place[1]).is_file():
            self.send((self.folder / place[1]).read_bytes(), "application/octet-stream", body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def send(self, content: bytes, kind: str, body: bool) -> None:
        self.send_response(200)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "X-Repo-Commit": self.commit,
            "ETag": f'"{hash(content):x}"',
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def test_a_model_of_the_hub_is_downloaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub
    from huggingface_hub import snapshot_download

    handler = type("OfMini", (Hub,), {"folder": REPOSITORY / "src" / "fvgen" / "models" / "weights" / "mini"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *given, **named: snapshot_download(*given, **named, endpoint=address, cache_dir=tmp_path / "cache"),
    )
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    try:
        pipeline = NovelViewPipeline.from_pretrained("someone/place")
        packaged = NovelViewPipeline.from_pretrained("mini").model.denoiser.state_dict()
        loaded = pipeline.model.denoiser.state_dict()
        assert all(torch.equal(loaded[name], packaged[name]) for name in packaged)
        with pytest.raises(UserError, match="model 'someone/else': there is no such folder, and someone/else cannot"):
            NovelViewPipeline.from_pretrained("someone/else")
    finally:
        server.shutdown()
