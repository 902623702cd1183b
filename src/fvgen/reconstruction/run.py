"""The whole job: an output of ``fvgen generate`` in; scene, video, curve and summary out. Interrupted, it goes on.

While it works, ``OUTPUT.work/checkpoint.pt`` holds everything that the fit goes on from.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen import __version__
from fvgen.cameras.alignment import world_from_local
from fvgen.devices import find_device
from fvgen.errors import UserError
from fvgen.files import write_whole, writing
from fvgen.pictures import to_bytes
from fvgen.progress import track
from fvgen.reconstruction.capture import Capture, read_capture
from fvgen.reconstruction.exports import WRITERS, fits
from fvgen.reconstruction.held_out import read_held_out, render_all, score
from fvgen.reconstruction.optimise import Optimisation, Settings
from fvgen.reconstruction.render import Renderer, find_renderer
from fvgen.reconstruction.targets import BESIDE, check_scene
from fvgen.scene.formats.video import write_video

_log = logging.getLogger(__name__)
_EVERY = 50  # iterations from one checkpoint to the next


def default_settings(device: torch.device) -> Settings:
    """What a CPU does in a few minutes, or a GPU in one."""
    return Settings(iterations=3000, longest=1600, gaussians=200_000) if device.type == "cuda" else Settings()


def reconstruct(
    folder: str | Path,
    output: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    renderer: str = "auto",
    device: str = "auto",
    truth: str | Path | None = None,
    fps: float = 10.0,
    overwrite: bool = False,
    keep_work: bool = False,
) -> dict[str, Any]:
    """Fit Gaussians to an output of ``fvgen generate``.

    Written are the scene, and beside it under the same name ``.mp4`` (the frames' path flown through), ``.svg`` (the
    curves of the fit) and ``.json`` (the summary). The same call again after an interruption goes on where the last
    checkpoint was, with the same result as if nothing had happened.

    Args:
        folder: the output.
        output: the scene to write, ``.ply``, ``.spz``, ``.glb`` or ``.gltf``.
        options: what of the fit's `Settings` is not as `default_settings` has it.
        renderer: ``torch``, ``gsplat``, or ``auto``; see `find_renderer`.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one.
        truth: a ``transforms.json`` with true frames in the same world, to compare with.
        fps: of the video.
        overwrite: replace files that are there.
        keep_work: keep the checkpoint afterwards.

    Returns:
        The summary.

    Raises:
        UserError: for everything that the caller can mend.
    """
    from fvgen.charts import curves

    start = time.perf_counter()
    target = check_scene(output, overwrite)
    place = find_device(device)
    draw = find_renderer(renderer, place)
    settings = replace(default_settings(place), **(options or {}))
    capture = read_capture(folder)
    _log.info("frames: %d photos, %d generated", len(capture.photographs), len(capture.generated))
    held_out = None if truth is None else read_held_out(truth, capture)
    with _work_folder(target) as work:
        world = world_from_local(capture.cameras, max(capture.typical_depth, 1e-30))
        fit = Optimisation(capture.shrunk(settings.longest).carried(world.inverse), settings, draw, place)
        resumed = _run(fit, work / "checkpoint.pt", _fingerprint(capture, settings, draw, place))
        final = fit.gaussians.each(Tensor.detach)
        went_on = f" (from {resumed})" if resumed else ""
        seconds = time.perf_counter() - start
        _log.info("fitting: %d iterations%s, %d Gaussians, %.0f s", fit.iteration, went_on, len(final), seconds)
        shown = render_all(final, fit.capture.cameras, draw)
        summary: dict[str, Any] = {
            "gaussians": len(final),
            "iterations": fit.iteration,
            "frames": {"photo": len(capture.photographs), "generated": len(capture.generated)},
            "settings": {name: value if value != float("inf") else None for name, value in asdict(settings).items()},
            "renderer": draw.__name__,  # type: ignore[attr-defined]
            "device": str(place),
            "resumed_from": resumed,
        }
        if capture.photographs:
            photos = fit.capture.photographs
            found = score(shown[photos], fit.capture.images[photos].float() / 255)
            summary["photographs"] = {name: _mean(values) for name, values in found.items()}
        if held_out is not None:
            found = score(render_all(final, world.inverse.cameras(held_out.cameras), draw), held_out.images)
            each = {name: dict(zip(held_out.names, values)) for name, values in found.items()}
            summary["held_out"] = {**{name: _mean(values) for name, values in found.items()}, "frames": each}
        scene = final.carried(world)
        if not fits(target.suffix, scene):
            scene, summary["world"] = final, {"scale": world.scale, "origin": world.translation.tolist()}
            _log.info("%s: too few bits for this world; coordinates times `scale` plus `origin` in the .json", target)
        summary |= {"seconds": round(time.perf_counter() - start, 1), "version": __version__}
        # Everything into the folder of work first, then each file into its place, the scene last: where it is, all is.
        WRITERS[target.suffix.lower()](work / target.name, scene)
        write_video(work / target.with_suffix(".mp4").name, to_bytes(shown[: fit.capture.flight]), fps)
        (work / target.with_suffix(".svg").name).write_text(curves({"fit": fit.log}), encoding="utf-8")
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
        (work / target.with_suffix(".json").name).write_text(text + "\n", encoding="utf-8")
        for file in (*(target.with_suffix(s) for s in BESIDE), target):
            os.replace(work / file.name, file)
    if not keep_work:
        shutil.rmtree(work)
    _log.info("wrote %s, and beside it %s", target, ", ".join(BESIDE))
    return summary


@contextlib.contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """``TARGET.work``; where the work fails only a checkpoint stays in it, and without one nothing.

    Raises:
        UserError: it cannot be written, or the disk is full.
    """
    work = target.with_name(target.name + ".work")
    missing = [p for p in (work, *work.parents) if not p.exists()]
    try:
        with writing(target.parent, f"`output` {target}"):
            work.mkdir(parents=True, exist_ok=True)
            yield work
    except BaseException as error:
        for file in work.glob("*"):
            if file.name != "checkpoint.pt":
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something is there
            for folder in missing:
                folder.rmdir()
        if isinstance(error, UserError) and (work / "checkpoint.pt").exists():
            raise UserError(f"{error}; what is done is kept in {work}, and the same command goes on with it") from None
        raise


def _fingerprint(capture: Capture, settings: Settings, draw: Renderer, device: torch.device) -> str:
    """SHA-256 of everything that a fit depends on."""
    digest = hashlib.sha256(f"{asdict(settings)} {draw.__name__} {device.type} {capture.photo}".encode())  # type: ignore[attr-defined]
    cameras = capture.cameras
    tensors = (capture.images, capture.covered, capture.positions, capture.colors)
    for tensor in (*tensors, cameras.world_from_camera, cameras.intrinsics):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _run(fit: Optimisation, checkpoint: Path, fingerprint: str) -> int:
    """Do what is left of a fit; returns the iteration that it went on from."""
    if checkpoint.exists():
        try:
            known = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling raises whatever damaged bytes lead to
            raise UserError(f"{checkpoint}: damaged ({type(error).__name__}); delete it to begin again") from None
        if isinstance(known, dict) and known.get("fingerprint") == fingerprint:
            fit.restore(known["state"])
    first = fit.iteration
    for _ in track(range(first, fit.settings.iterations), "fitting"):
        fit.step()
        if fit.iteration % _EVERY == 0 or fit.done:
            content = {"fingerprint": fingerprint, "state": fit.state()}
            write_whole(checkpoint, lambda file, content=content: torch.save(content, file))  # type: ignore[misc]
    return first


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)
