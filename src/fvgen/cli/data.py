"""``fvgen data``: what a folder of training pairs holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fvgen.data.folders import check_pairs
from fvgen.errors import UserError
from fvgen.files import check_file, output_file
from fvgen.hub import find_model


@dataclass(frozen=True)
class Data:
    """Show what a folder of training pairs holds: clips, reasons of drops, histograms of their figures, damage.

    The format is described in docs/data.md.
    """

    folder: Annotated[Positional[Path], arg(metavar="PAIRS")]
    """The folder of pairs."""

    sheet: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write a contact sheet, a PNG: of each clip three frames, truth over guide."""

    clips: Annotated[int, arg(metavar="N")] = 16
    """Clips on the contact sheet, spread over the folder."""

    check: bool = False
    """Also read everything and compare digests; damage then ends in exit code 2."""

    manifest: bool = False
    """Write manifest.json anew from the tars first, such as after scenes were added or removed by hand."""

    latents: Annotated[str | None, arg(metavar="NAME|FOLDER")] = None
    """Encode all pairs with this model's autoencoder and keep the latents beside them, for later trainings; under
    torchrun all processes share the work."""

    device: str = "auto"
    """Where latents are computed: auto, cpu, cuda."""

    def run(self) -> None:
        """Show."""
        if self.clips < 1:
            raise UserError(f"--clips {self.clips}: at least one")
        check_pairs(self.folder)
        if self.latents is not None:
            find_model(self.latents)
        if self.sheet is not None:
            check_file(self.sheet, overwrite=True, called="--sheet")
        from fvgen.data.shards import write_manifest
        from fvgen.data.summary import check, describe, summarise

        if self.manifest:
            write_manifest(self.folder)
        print(describe(summarise(self.folder)))
        if self.sheet is not None:
            self._sheet(self.sheet)
        if self.latents is not None:
            self._encode(self.latents)
        if self.check:
            damaged = check(self.folder)
            for name, reason in damaged.items():
                print(f"damaged: {name}: {reason}")
            if damaged:
                raise UserError(f"{self.folder}: {len(damaged)} damaged tars or samples; training passes over them")
            print("everything can be read and is as it was written")

    def _sheet(self, path: Path) -> None:
        from PIL import Image

        from fvgen.data.summary import sheet

        picture = Image.fromarray(sheet(self.folder, self.clips))
        with output_file(path, "--sheet") as unfinished:
            picture.save(unfinished, format="PNG")
        print(f"contact sheet in {path}")

    def _encode(self, name: str) -> None:
        from fvgen.data.latents import LatentCorpus
        from fvgen.models.model import VideoModel
        from fvgen.training.distributed import joined

        with joined(self.device) as world:
            model = VideoModel.load(name).to(world.device)
            corpus = LatentCorpus(self.folder, model)
            corpus.refresh(rank=world.rank, size=world.size)
        print(f"latents of {len(corpus.clips) + len(corpus.held)} clips in {corpus.cached_in}")
