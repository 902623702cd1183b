"""Everything that is looked at: the JSON, the tables, the page, the contact sheets."""

from typing import Any

import torch

from fvgen.evaluation.page import page
from fvgen.evaluation.sheets import contact_sheet
from fvgen.evaluation.store import Store, write_json, write_text
from fvgen.evaluation.tables import latex, markdown
from fvgen.progress import track

SHEET_FRAMES = 4


def write_report(store: Store, results: dict[str, Any], megabytes: float) -> str:
    """Write ``results.json``, ``table.md``, ``table.tex``, ``index.html`` and ``sheets/``.

    Args:
        store: of the finished run.
        results: what :func:`~fvgen.evaluation.run.evaluate` returned.
        megabytes: of pictures in the page, about.

    Returns:
        The Markdown table.
    """
    write_json(store.folder / "results.json", results)
    table = markdown(results)
    write_text(store.folder / "table.md", table)
    write_text(store.folder / "table.tex", latex(results))
    for name, record in track(results["splits"].items(), "sheets"):
        _write_sheet(store, name, record, list(results["systems"]))
    write_text(store.folder / "index.html", page(results, store, megabytes))
    return table


def _write_sheet(store: Store, split: str, record: dict[str, Any], systems: list[str]) -> None:
    from PIL import Image

    from fvgen.evaluation.frames import safe_name

    total = len(record["names"])
    rows = sorted({round((k + 0.5) * total / SHEET_FRAMES - 0.5) for k in range(min(SHEET_FRAMES, total))})
    clips = {}
    for system in (*systems, "truth"):
        pictures = [store.load_frame(system, split, record["names"][row]) for row in rows]
        clips[system] = torch.stack([picture for picture in pictures if picture is not None])
    folder = store.folder / "sheets"
    folder.mkdir(exist_ok=True)
    Image.fromarray(contact_sheet(clips)).save(folder / f"{safe_name(split)}.png")
