"""From what the user names to a session."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fvgen.errors import UserError
from fvgen.pipeline import NovelViewPipeline
from fvgen.scene.photos import load_photos
from fvgen.viewer.result import is_result, read_result
from fvgen.viewer.session import Options, Session
from fvgen.viewer.workspace import Workspace


def open_session(
    sources: Sequence[str],
    workspace: Path | None = None,
    options: Options | None = None,
    model: str = "mini",
    device: str = "auto",
    dtype: str = "auto",
) -> Session:
    """Read a result or photos; the scene is not built yet.

    Args:
        sources: one folder that ``fvgen generate`` wrote, or what `fvgen.scene.photos.load_photos` takes.
        workspace: default ``OUT-viewer`` beside OUT, or ``fvgen-viewer`` in the current folder.
        options: see there.
        model, device, dtype: see `NovelViewPipeline.from_pretrained`.

    Raises:
        UserError: nothing there, an incomplete result, a workspace that is a file, an unknown model.
    """
    options = options or Options()
    pipeline = NovelViewPipeline.from_pretrained(model, device=device, dtype=dtype, deferred=True)
    folder, result = Path(sources[0]), None
    if len(sources) == 1 and is_result(folder):
        result = read_result(folder)
        sources = [str(folder / "transforms_photos.json")]
        options = replace(options, geometry="given")
        workspace = workspace or folder.resolve().parent / f"{folder.resolve().name}-viewer"
    workspace = workspace or Path("fvgen-viewer")
    if workspace.exists() and not workspace.is_dir():
        raise UserError(f"--workspace {workspace}: a file; choose a folder")
    photos = load_photos(list(sources))
    return Session(photos, pipeline, Workspace(workspace), sources, result, options)
