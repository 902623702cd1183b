"""``fvgen prepare``: training pairs from footage."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fvgen.data.folders import SPLITS
from fvgen.data.recipe import PrepareRecipe
from fvgen.errors import UserError
from fvgen.files import must_exist
from fvgen.packages import require, require_estimator
from fvgen.training.run_folder import check_run_folder


@dataclass(frozen=True)
class Prepare:
    """Make training pairs: clips of footage, and the guides that two of their frames would have given.

    A SOURCE is a folder or file: DL3DV's folders, RealEstate10K's camera files with their frames, pixelSplat's .torch
    chunks, CO3D's categories, nerfstudio and COLMAP scenes, videos, folders of frames, or procedural:N for N procedural
    scenes. What does not make a good pair is dropped, and counted by reason. Run the same command again to go on after
    an interruption; finished scenes are kept.
    """

    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="SOURCE...")]
    """Footage, or procedural:N."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="PAIRS")]
    """Receives train/ and heldout/, with one tar per scene, and manifest.json."""

    size: Annotated[str, arg(metavar="WIDTHxHEIGHT")] = "512x320"
    """Size of the pairs in pixels."""

    workers: int = 1
    """Processes of this machine, one thread each. With --device cuda there is at least one for each GPU."""

    ray_address: Annotated[str | None, arg(metavar="auto|HOST:PORT|local")] = None
    """A Ray cluster that does the work instead; local starts one here with so many workers. Needs the extra
    `cluster`."""

    recipe: Annotated[PrepareRecipe, arg(name="")] = field(default_factory=PrepareRecipe)
    """How clips are chosen and guides made."""

    quiet: bool = False
    """Say nothing of what is done, show no bars: for scripts. Errors, and what was made, are still told."""

    def run(self) -> None:
        """Make the pairs."""
        from fvgen.cli.generate import parse_size

        if not self.sources:
            raise UserError("no footage: name folders or files, or procedural:N")
        if self.workers < 1:
            raise UserError(f"--workers {self.workers}: at least one")
        width, height = parse_size(self.size) or (512, 320)
        must_exist(*(source for source in self.sources if not source.startswith("procedural:")), *self.recipe.textures)
        require_estimator(self.recipe.geometry, self.recipe.depth)
        if self.ray_address:
            require("ray", "--ray-address")
        check_run_folder(self.output, "pairs", *SPLITS)
        from fvgen.data.farm import prepare_pairs
        from fvgen.data.summary import describe, summarise

        recipe = replace(self.recipe, width=width, height=height)
        prepare_pairs(self.sources, recipe, self.output, self.workers, self.ray_address)
        print(describe(summarise(self.output)))
