"""The demo: photos to novel views, a contact sheet, seconds per stage and, where the truth is known, the gain.

python scripts/demo.py --photos examples/demo/photos --output demo-output
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn.functional import avg_pool2d

from fvgen.errors import UserError
from fvgen.evaluation.metrics import gradient_energy, psnr, ssim
from fvgen.outputs import output_folder, write_files
from fvgen.pictures import to_bytes
from fvgen.pipeline import NovelViewPipeline, NovelViews
from fvgen.rendering.guide import resample_photo
from fvgen.scene.formats.images import read_photo
from fvgen.scene.formats.transforms_json import read_transforms_json
from fvgen.scene.photos import load_photos


def generate(photos: Path) -> tuple[NovelViews, torch.Tensor | None]:
    """Views of a folder of photos, and the true frames, half their size, where ``../transforms.json`` knows them."""
    pipeline = NovelViewPipeline.from_pretrained("mini")
    listed = photos.parent / "transforms.json"
    if not (photos.parent / "truth").is_dir() or not listed.is_file():
        return pipeline([photos]), None
    cameras, records = read_transforms_json(listed)
    files = [record["file_path"] for record in records]
    chosen = [i for i, name in enumerate(files) if name.startswith(f"{photos.name}/")]
    loaded = replace(load_photos([photos.parent / files[i] for i in chosen]), cameras=cameras[chosen])
    views = pipeline(loaded, path=cameras)
    width, height = views.cameras.size
    boxes = cameras.covering(width // 2, height // 2)[1]
    pictures = (read_photo(photos.parent / f).image for f in files)
    return views, torch.stack([resample_photo(p, b, width // 2, height // 2) for p, b in zip(pictures, boxes)])


def shrunk(pictures: torch.Tensor) -> torch.Tensor:
    """``[F, H, W, 3]`` uint8 at half the size, float 0..1: that of the true frames."""
    height, width = pictures.shape[1:3]
    box = (0, 0, width, height)
    return torch.stack([resample_photo(picture, box, width // 2, height // 2) for picture in pictures])


def contact_sheet(views: NovelViews, truth: torch.Tensor | None) -> Image.Image:
    """Guide above views (above truth), six frames from start to end."""
    made = [i for i, p in enumerate(views.photo) if p is None] or list(range(len(views.photo)))
    columns = [made[round(k * (len(made) - 1) / 5)] for k in range(6)]
    rows = [("guide", shrunk(views.guide.images()[columns])), ("fvgen, 4 steps", shrunk(views.frames[columns]))]
    if truth is not None:
        rows.append(("truth", truth[columns]))
    height, width = rows[0][1].shape[1:3]
    sheet = Image.new("RGB", (6 * width, len(rows) * height))
    draw = ImageDraw.Draw(sheet)
    for y, (name, frames) in enumerate(rows):
        for x, picture in enumerate(to_bytes(frames)):
            sheet.paste(Image.fromarray(np.asarray(picture)), (x * width, y * height))
        draw.text((6, y * height + 4), name, fill="white", stroke_width=2, stroke_fill="black")
    return sheet


def report(views: NovelViews, truth: torch.Tensor | None, summary: dict) -> str:
    """Figures against the truth, and seconds per stage."""
    lines = []
    made = torch.tensor([p is None for p in views.photo])
    if truth is not None and bool(made.any()):
        guide, filled, frames = (shrunk(x[made]) for x in (views.guide.images(), views.guide.completed, views.frames))
        coverage = avg_pool2d(views.guide.coverage[made, None].float(), 2)[:, 0] > 0.5
        truth = truth[made]
        lines.append(f"{'':22s}  PSNR dB  in holes   SSIM  sharpness (1 = the photographs')")
        photographs = gradient_energy(shrunk(views.frames[~made]))  # the true frames were made at half the size
        for name, pictures in (("guide", guide), ("guide, completed", filled), ("fvgen mini, 4 steps", frames)):
            sharp = gradient_energy(pictures) / photographs
            figures = (psnr(pictures, truth), psnr(pictures, truth, ~coverage), ssim(pictures, truth), sharp)
            lines.append("{:22s}  {:7.2f}  {:8.2f}  {:5.3f}  {:.2f}".format(name, *figures))
        gain = psnr(frames, truth) - psnr(guide, truth)
        lines.append(f"gain over the guide: {gain:.2f} dB on {int(made.sum())} frames that no photo shows")
    seconds = ", ".join(f"{k} {v:.1f}" for k, v in summary["seconds"].items())
    return "\n".join([*lines, f"seconds: {seconds}"])


def main() -> int:
    """Run the demo; 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        with output_folder(arguments.output, overwrite=True, inputs=[arguments.photos]) as folder:
            views, truth = generate(arguments.photos)
            write_files(views, folder)
            contact_sheet(views, truth).save(folder / "contact_sheet.png")
            print(report(views, truth, json.loads((folder / "summary.json").read_text())))
    except UserError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.output}/views.mp4 is the fly-through; contact_sheet.png shows it beside its guide")
    return 0


if __name__ == "__main__":
    sys.exit(main())
