"""The scenes of data sets in the layouts in use, found in a folder, their pictures read only when asked for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene.formats.lens import Lens
from fvgen.scene.layouts import LAYOUTS, Found, Stored, listed_again
from fvgen.scene.photos import Shot, posed_shot

UNMASKED = "scores take all pixels"


@dataclass(frozen=True)
class EvaluationScene:
    """A scene with a camera for each of its ``N`` frames, in the order that frame numbers refer to.

    Attributes:
        name: of the scene, unique in a run.
        dataset: the data set it belongs to, as tables call it.
        layout: how its files are laid out, a key of ``LAYOUTS``.
        folder: where they lie.
        frames: one entry per frame.
    """

    name: str
    dataset: str
    layout: str
    folder: Path
    frames: Sequence[Found]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def centers(self) -> Tensor:
        """``[N, 3]`` float64 camera centres, without reading any picture."""
        return torch.stack([frame.record.world_from_camera[:3, 3] for frame in self.frames])

    @property
    def pictures(self) -> str:
        """The folder its pictures are read from, such as ``images_4``, where its layout may have several sizes."""
        return self.frames[0].pictures

    @property
    def remarks(self) -> list[str]:
        """What is done to its pictures that the user should know, a line each."""
        told = [listed_again(list(self.frames))]
        masked = sum(frame.mask is not None for frame in self.frames)
        told += [f"masks of {masked} frames: no points from what they hide; {UNMASKED}"] if masked else []
        return [line for line in told if line]

    def read(self, index: int) -> Shot:
        """One frame: its picture, upright and undistorted, its camera at that picture's size, and its mask.

        Raises:
            UserError: a picture that is missing, damaged or of another shape than its camera.
        """
        frame = self.frames[index]
        return posed_shot(frame.record, frame.image, frame.mask)

    def fingerprint(self, indices: Sequence[int]) -> str:
        """SHA-256 over the names, cameras and files of some frames, masks too."""
        digest = hashlib.sha256()
        for index in indices:
            frame = self.frames[index]
            record = replace(frame.record, where="", raw={}, world_from_camera=torch.zeros(0))
            digest.update(f"{index} {frame.name} {record.focal} {record.center} {record.angle}".encode())
            digest.update(f"{record.size} {record.lens}".encode())
            digest.update(frame.record.world_from_camera.numpy().tobytes())
            digest.update(frame.image.read_bytes())
            if frame.mask is not None:
                digest.update(frame.mask.read_bytes())
        return digest.hexdigest()


def find_scenes(
    source: Path,
    layout: str = "auto",
    dataset: str = "",
    lens: str = "undistort",
    wanted: Stored = Stored(),  # noqa: B008
) -> list[EvaluationScene]:
    """The scenes in a folder: one scene, or a data set that holds several.

    Args:
        source: the folder.
        layout: a key of ``LAYOUTS``, or ``"auto"``: the first that finds anything.
        dataset: what tables call it; by default the layout's own name for it.
        lens: ``"undistort"`` or ``"ignore"`` (pictures as they are, as if by a pinhole camera, as some programs do).
        wanted: the pictures to read of scenes that keep them in several sizes.

    Raises:
        UserError: no such folder, nothing found (the line says what was looked for), or two scenes of one name.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    if layout not in (*LAYOUTS, "auto"):
        raise UserError(f"`layout` {layout}: choose auto, {', '.join(LAYOUTS)}")
    tried = list(LAYOUTS) if layout == "auto" else [layout]
    for name in tried:
        found = LAYOUTS[name].find(source, wanted)
        if found:
            title, scenes = dataset or LAYOUTS[name].title, []
            for scene, folder, frames in found:
                if lens == "ignore":
                    frames = [replace(frame, record=replace(frame.record, lens=Lens())) for frame in frames]
                scenes.append(EvaluationScene(scene, title, name, folder, frames))
            return scenes
    sought = "; ".join(f"{name}: {LAYOUTS[name].looks_for}" for name in tried)
    raise UserError(f"{source}: no scene found; looked for {sought}")


def join_cameras(shots: Sequence[Shot]) -> Cameras:
    """The cameras of posed pictures as one batch."""
    return Cameras.concatenate([shot.camera for shot in shots if shot.camera is not None])
