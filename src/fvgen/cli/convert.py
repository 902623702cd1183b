"""``fvgen convert``: ViewCrafter's checkpoints to model folders, and back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from fvgen.errors import UserError
from fvgen.files import check_file, must_exist
from fvgen.models.viewcrafter.record import check_converted


@dataclass(frozen=True)
class Convert:
    """Make a model folder of a ViewCrafter checkpoint, or the checkpoint of the folder again.

    The folder is then used as `fvgen generate --model FOLDER`. No code that a checkpoint may hold is run.
    """

    source: Annotated[Positional[Path], arg(metavar="CHECKPOINT|FOLDER")]
    """The .ckpt or .pth file; with --to viewcrafter, the folder."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER|FILE")]
    """The folder to write, empty or new (see --overwrite); with --to viewcrafter, the file."""

    to: Literal["fvgen", "viewcrafter"] = "fvgen"
    """The direction. Back to viewcrafter restores the keys and the bytes of the tensors."""

    preset: Annotated[str, arg(metavar="NAME")] = "auto"
    """viewcrafter-25, viewcrafter-25-sparse, viewcrafter-16, viewcrafter-25-512 or viewcrafter-512-16 (16 frames of
    512x320, from the weights of a 25-frame model): size, frames and token branch, which a checkpoint does not say.
    auto: viewcrafter-25-512 or viewcrafter-25, told apart by their base scale."""

    config: Annotated[Path | None, arg(metavar="YAML")] = None
    """ViewCrafter's own configuration, for a model of another size; what it says comes before the preset."""

    frames: Annotated[int | None, arg(metavar="INT")] = None
    """Most frames of a clip. Default: the preset's."""

    image_tokens: Literal["preset", "global", "per-frame"] = "preset"
    """Whether every frame sees all image tokens (the models of 25 frames) or its own 16 (those of 16)."""

    text: Annotated[Path | None, arg(metavar="FILE")] = None
    """Safetensors with the embeddings of another prompt: prompt and empty_prompt, 77 tokens each."""

    overwrite: bool = False
    """Replace what is there."""

    def run(self) -> None:
        """Check what can be checked at once, convert, and say what went where."""
        must_exist(self.source, self.config, self.text)
        if self.to == "viewcrafter":
            check_converted(self.source)
            check_file(self.output, self.overwrite)
            from fvgen.models.viewcrafter import to_viewcrafter

            print("\n".join(to_viewcrafter(self.source, self.output)))
            return
        if self.source.is_dir():
            raise UserError(f"{self.source}: a folder; name the checkpoint's file (--to viewcrafter: back to one)")
        from fvgen.outputs import output_folder

        per_frame = None if self.image_tokens == "preset" else self.image_tokens == "per-frame"
        inputs = [self.source, *(file for file in (self.config, self.text) if file is not None)]
        with output_folder(self.output, self.overwrite, inputs) as folder:
            from fvgen.models.viewcrafter import Choice, from_viewcrafter

            choice = Choice(self.preset, self.config, self.frames, per_frame, self.text)
            report = from_viewcrafter(self.source, folder, choice)
        print("\n".join(report))
        print(f"model in {self.output}")
