"""``fvgen evaluate``: two photos in, the frames between them as truth."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fvgen.errors import UserError


@dataclass(frozen=True)
class Evaluate:
    """Compare models with the guide, with its holes inpainted, and with that blurred.

    Each SCENE is a folder with a transforms.json and a pairs.json: a list of {"first", "last", "between"} frame
    numbers. Needs the extra `eval` (OpenCV).
    """

    scenes: Annotated[Positional[tuple[Path, ...]], arg(metavar="SCENE...")]
    """Scene folders."""

    models: Annotated[tuple[str, ...], arg(metavar="MODEL[:STEPS]...")] = (
        "mini-teacher:4",
        "mini-teacher:50",
        "mini:4",
    )
    """Models, each with a number of steps if not its own."""

    size: Annotated[str, arg(metavar="WIDTHxHEIGHT")] = "256x160"
    """Size of the views for landscape photos; swapped for portrait ones."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FOLDER")] = None
    """Receives results.json, table.md and one contact sheet per pair."""

    def run(self) -> None:
        """Measure and print."""
        from fvgen.cli.generate import parse_size
        from fvgen.evaluation.pairs import Contestant, contact_sheet, evaluate_pair, load_pairs, summarise, table
        from fvgen.pipeline import NovelViewPipeline
        from fvgen.progress import track

        if not self.scenes:
            raise UserError("no scenes: name folders with a transforms.json and a pairs.json")
        size = parse_size(self.size) or (256, 160)
        contestants = []
        for text in self.models:
            name, _, steps = text.partition(":")
            if steps and not steps.isdigit():
                raise UserError(f"--models {text}: write MODEL or MODEL:STEPS, such as mini-teacher:50")
            label = f"{name} {steps}".strip()
            contestants.append(
                Contestant(label, NovelViewPipeline.from_pretrained(name), int(steps) if steps else None)
            )
        results, sheets = {}, {}
        shown = ["guide", "guide + telea", "completed guide", *(c.name for c in contestants), "truth"]
        for folder in self.scenes:
            for task in track(load_pairs(folder, size), folder.name):
                results[task.name], pictures = evaluate_pair(task, contestants)
                sheets[task.name] = contact_sheet(pictures, shown)
        summary = table(summarise(results))
        print(summary)
        if self.output is not None:
            _write(self.output, results, summary, sheets)


def _write(folder: Path, results: dict, summary: str, sheets: dict) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "table.md").write_text(summary + "\n")
    for name, sheet in sheets.items():
        Image.fromarray(sheet).save(folder / f"{name}.png")
