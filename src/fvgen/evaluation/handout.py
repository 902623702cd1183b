"""The questions of an evaluation for programs of others: pixelSplat's chunks, which DepthSplat and MVSplat360 read."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.evaluation.run import Plan
from fvgen.evaluation.task import Task
from fvgen.outputs import output_folder
from fvgen.progress import track


def write_handout(plan: Plan, folder: Path) -> None:
    """Write every split as a scene of its own, frames given and asked for, at the scored size.

    - ``test/NNNNNN.torch`` and ``test/index.json`` (key to chunk): pictures as PNG bytes; cameras as
      ``[n, 18]``: fx, fy, cx, cy as shares of width and height, 0, 0, and the 3x4 world-to-camera matrix, OpenCV axes.
    - ``evaluation_index.json``: key to ``context`` and ``target``, numbers within the chunk.
    - ``frames.json``: key to the names of the chunk's frames, by which answers are called.

    Raises:
        UserError: the folder is not empty, or a picture cannot be read.
    """
    with output_folder(folder) as out:
        (out / "test").mkdir()
        chunks, questions, names = {}, {}, {}
        for number, split in enumerate(track(plan.splits, "handout")):
            rows = sorted({*split.context, *split.target})
            task = plan.task(replace(split, target=rows))
            file = f"{number:06d}.torch"
            torch.save([_scene(split.name, rows, task)], out / "test" / file)
            chunks[split.name] = file
            questions[split.name] = {
                "context": [rows.index(i) for i in split.context],
                "target": [rows.index(i) for i in split.target],
            }
            names[split.name] = task.names
        for file, content in (
            ("test/index.json", chunks),
            ("evaluation_index.json", questions),
            ("frames.json", names),
        ):
            (out / file).write_text(json.dumps(content, indent=1) + "\n")


def _scene(key: str, rows: list[int], task: Task) -> dict[str, Any]:
    cameras = Cameras.concatenate([camera for _, camera in task.targets])
    k, (width, height) = cameras.intrinsics, cameras.sizes.double().unbind(1)
    shares = torch.stack([k[:, 0, 0] / width, k[:, 1, 1] / height, k[:, 0, 2] / width, k[:, 1, 2] / height], 1)
    matrices = cameras.camera_from_world[:, :3].flatten(1)
    numbers = torch.cat([shares, torch.zeros(len(rows), 2, dtype=torch.float64), matrices], 1)
    images = [_png(picture) for picture in task.truth]
    return {"key": key, "url": "", "timestamps": torch.tensor(rows), "cameras": numbers.float(), "images": images}


def _png(picture: Tensor) -> Tensor:
    with io.BytesIO() as buffer:
        Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)).save(buffer, "PNG")
        return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
