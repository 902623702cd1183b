"""``fvgen reconstruct``: 3D Gaussians from what ``fvgen generate`` wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from fvgen.errors import UserError
from fvgen.files import must_exist
from fvgen.packages import require_renderer
from fvgen.reconstruction.targets import check_scene


@dataclass(frozen=True)
class Reconstruct:
    """Make a scene of 3D Gaussians from an output of fvgen generate.

    Beside the scene, under the same name, come a flight along the frames' path (.mp4), the curves of the fit (.svg)
    and a summary (.json). Interrupted, the same command goes on where it was.
    """

    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """A folder that fvgen generate wrote."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="FILE")]
    """The scene: .ply, which most splat viewers open; .spz, a quarter of the size; .glb or .gltf with
    KHR_gaussian_splatting. The latter have y up."""

    iterations: Annotated[int | None, arg(metavar="INT")] = None
    """Frames shown, one at a time. Default: 600, on a GPU 3000."""

    gaussians: Annotated[int | None, arg(metavar="INT")] = None
    """Gaussians at the beginning, at most. Default: 20000, on a GPU 200000."""

    longest: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Frames are fitted at this length of their longer side at most; twice as long is four times as slow. Default: 512,
    on a GPU 1600."""

    sh_degree: Annotated[int, arg(metavar="0..3")] = 0
    """Degree of the spherical harmonics: above 0, colours may depend on the direction of view."""

    renderer: Literal["auto", "torch", "gsplat"] = "auto"
    """torch runs anywhere; gsplat needs a GPU and the extra `gs`; auto: gsplat where it can run."""

    truth: Annotated[Path | None, arg(metavar="FILE")] = None
    """A transforms.json with true frames in the world of the given cameras: the summary gets their PSNR and SSIM.
    Photographs that were used are left out."""

    seed: int = 0
    """Of all draws: the same seed gives the same scene on the same machine."""

    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """cpu, cuda, cuda:1 and so on, or auto: cuda if there is one."""

    fps: Annotated[float, arg(metavar="FLOAT")] = 10.0
    """Frames per second of the video."""

    overwrite: bool = False
    """Replace a scene that is there. It is replaced only once the new one is whole."""

    keep_work: bool = False
    """Keep FILE.work, which holds the last checkpoint, when done."""

    quiet: bool = False
    """Say nothing of what is done, show no bars: for scripts. Errors, and what was made, are still told."""

    def run(self) -> None:
        """Check what can be checked at once, then fit and write."""
        options: dict[str, Any] = {}
        for name, least in (("iterations", 1), ("gaussians", 10), ("longest", 64)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} {value}: choose {least} at least")
            options |= {} if value is None else {name: value}
        if not 0 <= self.sh_degree <= 3:
            raise UserError(f"--sh-degree {self.sh_degree}: choose 0, 1, 2 or 3")
        if not 0 < self.fps <= 1000:
            raise UserError(f"--fps {self.fps:g}: choose a number above 0 and at most 1000")
        if not self.out.is_dir():
            raise UserError(f"{self.out}: there is no such folder; name one that fvgen generate wrote")
        must_exist(self.truth)
        require_renderer(self.renderer)
        check_scene(self.output, self.overwrite)
        from fvgen.reconstruction.run import reconstruct

        summary = reconstruct(
            self.out,
            self.output,
            options={**options, "degree": self.sh_degree, "seed": self.seed},
            renderer=self.renderer,
            device=self.device,
            truth=self.truth,
            fps=self.fps,
            overwrite=self.overwrite,
            keep_work=self.keep_work,
        )
        print(told(summary, self.output))


def told(summary: dict[str, Any], output: Path) -> str:
    """The line that is printed at the end."""
    line = f"{summary['gaussians']} Gaussians in {output}"
    if "held_out" in summary:
        found = summary["held_out"]
        line += f"; true frames: PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.3f}"
    return line
