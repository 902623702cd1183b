"""How training pairs are made of footage. Light: imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Suppress, arg

from fvgen.errors import UserError


@dataclass(frozen=True)
class PrepareRecipe:
    """Options of `fvgen prepare`."""

    width: Suppress[int] = 512
    """Of the pairs, in pixels."""

    height: Suppress[int] = 320
    """Of the pairs, in pixels."""

    frames: int = 16
    """Frames of a clip."""

    least_frames: int | None = None
    """Where set, clips have a random number of frames from this one on: for photographs that lie far apart."""

    clips: int = 2
    """Clips of each scene, where so many are good."""

    attempts: int = 4
    """Clips tried for each that is wanted."""

    overlap: float = 0.5
    """Share of a clip's span that another clip of the scene may have as well; 1 allows all."""

    longest_stride: int = 4
    """Every so many frames of the footage at most; each clip has a stride from 1 to this."""

    crop: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom of the part of the footage to use, as shares of its size: without bars or subtitles."""

    cloud: Literal["ends", "one"] = "ends"
    """Whose depth makes the point cloud: the first and the last frame's (FVGen), or that of one random frame, which
    is also shown at its place, as in ViewCrafter."""

    geometry: str = "colmap"
    """Estimator of cameras for footage without: colmap (ours), dust3r or da3."""

    depth: Literal["sweep", "estimator"] = "sweep"
    """Depth by our plane sweep, or that of the estimator of cameras."""

    textures: Annotated[tuple[Path, ...], arg(metavar="FOLDER...")] = ()
    """Photographs that texture procedural scenes; without any, textures are procedural too."""

    device: str = "cpu"
    """Where geometry and rendering run."""

    held_out: float = 0.025
    """Share of scenes that are kept for measuring."""

    seed: int = 0
    """Of everything random."""

    least_coverage: float = 0.35
    """Clips whose guide covers less of the pictures are dropped."""

    least_psnr: float = 14.0
    """Clips whose guide agrees less with the pictures, in dB where it is measured, are dropped."""

    def __post_init__(self) -> None:
        if self.frames < 3 or (self.least_frames is not None and not 3 <= self.least_frames <= self.frames):
            raise UserError("clips have at least 3 frames, and least-frames is at most frames")
        if min(self.clips, self.attempts, self.longest_stride) < 1:
            raise UserError("clips, attempts and longest-stride are at least 1")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise UserError("crop is left, top, right, bottom as shares of the size, such as 0 0 0.5 1")
        if not 0 <= self.held_out < 1:
            raise UserError("held-out is a share: at least 0, below 1")
        if self.depth == "estimator" and self.geometry == "colmap":
            raise UserError("colmap gives no depth of its own: use --depth sweep, or --geometry dust3r or da3")
