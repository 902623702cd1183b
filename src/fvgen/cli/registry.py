"""The commands of ``fvgen``. A command is one line here and one dataclass with ``run()`` in its module."""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """Where a command's dataclass lives, and what it does in one line.

    The module is imported only when the command is used, so it may import what it needs; its dataclass has a
    docstring (the head of its ``--help``), a docstring under each field, and a method ``run() -> None``.
    """

    module: str
    name: str
    summary: str

    def load(self) -> type[Any]:
        """The dataclass of this command."""
        return getattr(importlib.import_module(self.module), self.name)


COMMANDS: dict[str, Command] = {
    "generate": Command("fvgen.cli.generate", "Generate", "novel views from a few photos"),
    "view": Command("fvgen.cli.view", "View", "a page to see a scene, draw a camera path and generate along it"),
    "page": Command("fvgen.cli.view", "Page", "a result as one HTML file to share"),
    "reconstruct": Command("fvgen.cli.reconstruct", "Reconstruct", "3D Gaussians from an output of generate"),
    "render": Command("fvgen.cli.splats", "Render", "a flight through a scene of 3D Gaussians"),
    "splats": Command("fvgen.cli.splats", "Splats", "a scene of 3D Gaussians as SPZ, glTF or PLY"),
    "evaluate": Command("fvgen.cli.evaluate", "Evaluate", "models, baselines and outside frames against true frames"),
    "tables": Command("fvgen.cli.tables", "Tables", "the paper's tables from what evaluate wrote"),
    "convert": Command("fvgen.cli.convert", "Convert", "ViewCrafter's checkpoints to model folders, and back"),
    "prepare": Command("fvgen.cli.prepare", "Prepare", "training pairs from footage: clips, and guides of two frames"),
    "train depth": Command("fvgen.cli.train", "Depth", "the network that expects depth"),
    "train autoencoder": Command("fvgen.cli.train", "Autoencoder", "the image autoencoder"),
    "train teacher": Command("fvgen.cli.train", "Teacher", "the many-step teacher, on training pairs"),
    "train viewcrafter-512": Command(
        "fvgen.cli.train", "ViewCrafter512", "ViewCrafter, tuned to the clips of its student"
    ),
    "train all": Command("fvgen.cli.train", "Everything", "pairs, autoencoder, teacher and student in one go"),
    "distill toy": Command("fvgen.cli.distill", "Toy", "every method on a mixture whose truth is known"),
    "distill mini": Command("fvgen.cli.distill", "Mini", "a few-step student of mini-teacher"),
    "distill mini-xs": Command("fvgen.cli.distill", "MiniXs", "the same, tiny"),
    "distill viewcrafter-512": Command("fvgen.cli.distill", "ViewCrafter512", "the paper's distillation, 8 GPUs"),
    "distill viewcrafter-512-lora": Command(
        "fvgen.cli.distill", "ViewCrafter512Lora", "low-rank parts on frozen weights, one GPU of 24 GB"
    ),
    "distill viewcrafter-512-one-gpu": Command("fvgen.cli.distill", "ViewCrafter512OneGpu", "the same on one GPU"),
    "data": Command("fvgen.cli.data", "Data", "what a folder of training pairs holds"),
    "benchmark stages": Command("fvgen.cli.benchmark", "Stages", "seconds and memory of each stage of a generation"),
    "benchmark count": Command("fvgen.cli.benchmark", "Count", "operations and memory of each stage, counted"),
    "benchmark data": Command("fvgen.cli.benchmark", "Data", "how fast training pairs are read"),
    "export": Command("fvgen.cli.distill", "Export", "a distillation's student as a model folder"),
    "plot": Command("fvgen.cli.distill", "Plot", "the curves of training runs"),
}

HEADINGS: dict[str, tuple[str, ...]] = {
    "use": ("generate", "view", "page", "reconstruct", "render", "splats"),
    "measure": ("evaluate", "tables", "benchmark"),
    "train": ("convert", "prepare", "data", "train", "distill", "export", "plot"),
}
"""Under which heading ``fvgen --help`` lists commands, by their first words."""
