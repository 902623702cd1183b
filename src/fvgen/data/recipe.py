"""How training pairs are made of footage. Light: imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Suppress, arg

from fvgen.errors import UserError


@dataclass(frozen=True)
class ClipDraw:
    """Which clips a training draws from its pairs."""

    frames: int = 16
    """Most frames of a clip."""

    least_frames: int = 2
    """Fewest; the clips of a batch have one length, uniform between the two where pairs are that long."""

    ends: Literal["anywhere", "photos"] = "anywhere"
    """photos: a photograph at both ends, as the paper's clips and windows in use have; anywhere: a third of the clips
    at the beginning of a pair, a third at its end, the others in between."""

    reverse: float = 0.5
    """Share of the clips that is played backwards."""

    filmed: float = 0.75
    """Share of the clips filmed for real, where there are procedural ones too."""

    crop: tuple[int, int] | None = None
    """Latent height and width of random crops; by default whole pictures."""

    def __post_init__(self) -> None:
        if not 2 <= self.least_frames <= self.frames:
            raise UserError("clips have at least 2 frames, and `least_frames` is at most `frames`")
        if not (0 <= self.reverse <= 1 and 0 <= self.filmed <= 1):
            raise UserError("`reverse` and `filmed` are shares: from 0 to 1")


PAPER_CLIPS = ClipDraw(frames=16, least_frames=16, ends="photos", reverse=0.0, filmed=1.0)


@dataclass(frozen=True)
class Flaws:
    """What goes wrong on purpose with the guides of procedural pairs: in half of them, up to so much."""

    depth_noise: float = 0.0
    """Standard deviation of a smooth relative error of depth."""

    missing_points: float = 0.0
    """Share of each photograph, in patches, that gives no points."""

    thin_coverage: float = 0.0
    """Share of the points left out one by one."""

    exposure_difference: float = 0.0
    """Natural logarithm of the ratio of the two photographs' exposures; the clip changes from one to the other."""

    def __post_init__(self) -> None:
        if not all(0 <= share < 1 for share in (self.missing_points, self.thin_coverage)):
            raise UserError("`missing_points` and `thin_coverage` are shares: at least 0, below 1")
        if self.depth_noise < 0:
            raise UserError("`depth_noise` is at least 0")


@dataclass(frozen=True)
class ProceduralRecipe:
    """Options of pairs that are made while a training asks for them."""

    width: int = 256
    """Width of the pairs in pixels."""

    height: int = 160
    """Height of the pairs in pixels."""

    least_frames: int = 6
    """Clips have a random number of frames from this one ..."""

    frames: int = 16
    """... to this one."""

    textures: Annotated[tuple[Path, ...], arg(metavar="FOLDER...")] = ()
    """Photographs for textures; without any, all are procedural."""

    depth: Literal["sweep", "exact"] = "sweep"
    """Depth of the two photographs by our plane sweep, or the scene's own where both see it, which is faster."""

    flaws: Annotated[Flaws, arg(name="")] = field(
        default_factory=lambda: Flaws(depth_noise=0.01, missing_points=0.2, thin_coverage=0.4, exposure_difference=0.15)
    )
    """What goes wrong on purpose."""

    reuse: int = 8
    """How often each clip is drawn on average, with other windows, crops and noise. Each row of the batch has clips of
    its own, so several processes make each clip once."""

    window: int = 8
    """Clips that each row of the batch draws from at any time; a training that is resumed makes so many again."""

    held: int = 4
    """Clips kept for measuring."""

    workers: int = 1
    """Processes that make clips for a training on a CPU; 0 for a thread."""

    def __post_init__(self) -> None:
        if not 3 <= self.least_frames <= self.frames:
            raise UserError("clips have at least 3 frames, `made.least_frames` is at most `made.frames`")
        if self.width < 16 or self.height < 16 or self.width % 16 or self.height % 16:
            raise UserError(f"{self.width}x{self.height}: the networks need multiples of 16")
        if min(self.reuse, self.window, self.held) < 1 or self.workers < 0:
            raise UserError("`made.reuse`, `made.window` and `made.held` are at least 1, `made.workers` at least 0")


@dataclass(frozen=True)
class PrepareRecipe:
    """Options of `fvgen prepare`."""

    width: Suppress[int] = 512
    """Width of the pairs in pixels."""

    height: Suppress[int] = 320
    """Height of the pairs in pixels."""

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

    images: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Folder of pictures to read, such as images_4, of scenes that keep them in several sizes (DL3DV, COLMAP,
    nerfstudio). Default: the smallest pictures that are not enlarged."""

    geometry: Literal["colmap", "dust3r", "da3"] = "colmap"
    """Estimator of cameras for footage without: colmap (ours), dust3r or da3."""

    depth: Literal["auto", "sweep", "dust3r", "da3"] = "sweep"
    """Where depth of footage comes from: our plane sweep, or the network dust3r or da3, which sees the frames that are
    shown and is brought as a whole to their cameras. auto: the network's where cameras were found by one."""

    geometry_weights: Annotated[str | None, arg(metavar="NAME|PATH|hub:OWNER/MODEL")] = None
    """Weights of dust3r (512_dpt, 512_linear) or da3 (base, small), as in fvgen generate."""

    guide: Literal["lookup", "points"] = "lookup"
    """What the model of the pairs is shown: colours looked up in the photographs (mini), or splatted points over black
    (ViewCrafter)."""

    textures: Annotated[tuple[Path, ...], arg(metavar="FOLDER...")] = ()
    """Photographs that texture procedural scenes; without any, textures are procedural too."""

    flaws: Annotated[Flaws, arg(name="")] = field(default_factory=Flaws)
    """What goes wrong on purpose with procedural pairs."""

    device: str = "cpu"
    """Where geometry and rendering run. With cuda the processes of this machine take its GPUs in turn; with cuda:1 all
    keep to that one."""

    held_out: float = 0.025
    """Share of scenes that are kept for measuring."""

    seed: int = 0
    """Seed of everything random."""

    least_coverage: float = 0.35
    """Clips whose guide covers less of the pictures are dropped."""

    least_psnr: float = 14.0
    """Clips whose guide agrees less with the pictures, in dB where it is measured, are dropped."""

    def __post_init__(self) -> None:
        if self.frames < 3 or (self.least_frames is not None and not 3 <= self.least_frames <= self.frames):
            raise UserError("clips have at least 3 frames, and `least_frames` is at most `frames`")
        if min(self.clips, self.attempts, self.longest_stride) < 1:
            raise UserError("`clips`, `attempts` and `longest_stride` are at least 1")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise UserError("`crop` is left, top, right, bottom as shares of the size, such as 0 0 0.5 1")
        if not 0 <= self.held_out < 1:
            raise UserError("`held_out` is a share: at least 0, below 1")
