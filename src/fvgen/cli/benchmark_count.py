"""``fvgen benchmark count``: how much work there is, and how fast it could be."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from fvgen.cli.benchmark import check_file, write_figures
from fvgen.errors import UserError

if TYPE_CHECKING:
    import torch

    from fvgen.evaluation.benchmark.hardware import Machine


@dataclass(frozen=True)
class Count:
    """Count operations and bytes of each stage of a model, without running it, and the time they need at least.

    Nothing is allocated: the largest networks are counted on any machine. See docs/benchmark.md for how.
    """

    model: Annotated[str | None, arg(metavar="NAME|FOLDER")] = None
    """The model. Default: mini."""

    preset: Annotated[str | None, arg(metavar="NAME")] = None
    """Instead, the shape of one, such as viewcrafter-512-16."""

    frames: Annotated[int | None, arg(metavar="INT")] = None
    """Frames of the clip. Default: the model's."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT")] = None
    """Size of its pictures. Default: the model's."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of weights and activations."""

    photos: int = 5
    """Photos of the scene that is matched and splatted."""

    planes: int = 128
    """Planes that each photo is swept over; 128 is the most there are."""

    machine: Annotated[str | None, arg(metavar="this|h100|h200")] = None
    """Also say the least seconds on a machine: this one, measured in a few seconds, or a GPU by its data sheet."""

    tflops: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Instead of --machine: 10^12 operations per second, with --gbytes-per-s."""

    gbytes_per_s: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Instead of --machine: 10^9 bytes per second, with --tflops."""

    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """With --machine this: what is measured, cpu or cuda."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """Also write the figures as JSON."""

    def run(self) -> None:
        """Count and print."""
        if self.model is not None and self.preset is not None:
            raise UserError("--model and --preset: name one of them")
        if self.planes < 1 or self.photos < 2 or (self.frames is not None and self.frames < 1):
            raise UserError("--frames and --planes are at least 1, --photos at least 2")
        check_file(self.output)
        import torch

        from fvgen.cli.generate import parse_size
        from fvgen.evaluation.benchmark.floor import as_json, totals, work_table
        from fvgen.evaluation.benchmark.tally import count_all

        dtype = getattr(torch, self.dtype)
        machine = self._machine(dtype)
        size = parse_size(self.size)
        works, stages = count_all(self.model, self.preset, self.frames, size, dtype, self.photos, self.planes)
        print(work_table(works, machine), "", totals(stages, machine), sep="\n")
        write_figures(self.output, as_json(works, machine))

    def _machine(self, dtype: "torch.dtype") -> "Machine | None":
        from fvgen.evaluation.benchmark.hardware import Machine, machine

        if self.tflops is None and self.gbytes_per_s is None:
            return None if self.machine is None else machine(self.machine, dtype, self.device)
        tflops, gbytes = self.tflops or 0.0, self.gbytes_per_s or 0.0
        if self.machine is not None or tflops <= 0 or gbytes <= 0:
            raise UserError("a machine is --machine NAME, or --tflops and --gbytes-per-s, both above 0")
        return Machine("the machine given", tflops, gbytes)
