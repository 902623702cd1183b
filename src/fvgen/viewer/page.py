"""A result as one HTML file: guide and views under one slider, the path from above, photographs, summary."""

import json
import math
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from fvgen import __version__
from fvgen.errors import UserError
from fvgen.pages import data_uri, filled, script_json
from fvgen.progress import track
from fvgen.scene.formats.images import read_photo
from fvgen.scene.formats.video import frame_times
from fvgen.viewer.overhead import Overhead
from fvgen.viewer.result import Result, read_result

_DETAIL = ((None, 88), (None, 76), (1024, 80), (768, 78), (512, 76), (384, 72), (256, 68))  # long side, JPEG quality
_PHOTO = 360
_TRIED = 4


def write_page(out: Path, output: Path, title: str | None = None, megabytes: float = 12.0) -> int:
    """Write the page of a result.

    Args:
        out: what ``fvgen generate`` wrote.
        output: the file; an existing one is replaced.
        title: heading, by default the folder's name.
        megabytes: of pictures of frames at most: where they do not fit they are compressed more, then made smaller,
            and at last only every second, third, ... frame is there, which the page says.

    Returns:
        Bytes written.

    Raises:
        UserError: an incomplete result, or a file that cannot be written.
    """
    result = read_result(out)
    times = frame_times(out / "views.mp4")
    rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 10.0
    page = render_page(result, rate, title or result.name, megabytes).encode()
    temporary = output.with_name(f".{output.name}.partial")
    try:
        temporary.write_bytes(page)
        temporary.replace(output)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror}); choose another") from None
    finally:
        temporary.unlink(missing_ok=True)
    return len(page)


def render_page(result: Result, rate: float, title: str, megabytes: float) -> str:
    """The page as text; see `write_page`.

    Args:
        rate: frames per second.
    """
    (longest, quality), stride = _fitting(result, megabytes)
    overhead = Overhead(result)
    numbers = list(range(0, len(result.frames), stride))
    frames = [
        {
            "number": i,
            "guide": data_uri(result.guide[i], quality, longest),
            "view": data_uri(result.frames[i], quality, longest),
            "photo": result.photo[i],
            "here": overhead.frustum(result.cameras[i]),
        }
        for i in track(numbers, "page")
    ]
    height, width = result.frames.shape[1:3]
    parts = {
        "TITLE": escape(title),
        "ASPECT": f"{width}/{height}",
        "CHIPS": _chips(result),
        "LAST": str(len(numbers) - 1),
        "NOTE": escape(_note(result, stride)),
        "MAP": overhead.svg(result),
        "PHOTOS": "".join(_photos(result)),
        "FACTS": _facts(result),
        "FOOTER": f"Made by fvgen {escape(__version__)}. This file needs no network.",
        "SUMMARY": escape(json.dumps(result.summary, indent=2, ensure_ascii=False)),
        "DATA": script_json({"frames": frames, "rate": round(rate / stride, 3)}),
    }
    return filled("fvgen.viewer", "page.html", parts)


def _fitting(result: Result, megabytes: float) -> tuple[tuple[int | None, int], int]:
    """How long and how good the pictures may be, and which frames are embedded (every n-th)."""
    count, size = len(result.frames), 0.0
    tried = sorted({round(k * (count - 1) / (_TRIED - 1)) for k in range(_TRIED)})
    for detail in _DETAIL:
        longest, quality = detail
        pictures = [p for i in tried for p in (result.guide[i], result.frames[i])]
        size = sum(len(data_uri(p, quality, longest)) for p in pictures) / len(tried) * count
        if size <= megabytes * 1e6:
            return detail, 1
    return _DETAIL[-1], math.ceil(size / (megabytes * 1e6))


def _note(result: Result, stride: int) -> str:
    photos = sum(p is not None for p in result.photo)
    text = "Left of the line the point render that guided the model, right of it what came out."
    text += f" {photos} of the {len(result.photo)} frames are photographs." if photos else ""
    return text if stride == 1 else f"{text} Every {stride}. frame is in this file."


def _text(value: Any) -> str:
    return escape(str(value))


def _chips(result: Result) -> str:
    summary, seconds = result.summary, result.summary.get("seconds", {})
    facts = {
        "model": summary.get("model"),
        "steps": summary.get("steps"),
        "frames": len(result.frames),
        "size": f"{result.frames.shape[2]}x{result.frames.shape[1]}",
        "photos": len(result.photo_names),
        "seconds": seconds.get("total") if isinstance(seconds, dict) else None,
    }
    return "".join(f"<span>{name} <b>{_text(value)}</b></span>" for name, value in facts.items() if value is not None)


def _facts(result: Result) -> str:
    rows = []
    for key, value in result.summary.items():
        if key == "photos" and isinstance(value, dict):
            dropped = [d for d in value.get("dropped", []) if isinstance(d, dict)]
            value = f"{len(value.get('used', []))} used"
            value += "".join(f"; {d.get('name')} left out: {d.get('reason')}" for d in dropped)
        elif isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = " x ".join(map(str, value))
        rows.append(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>")
    return "".join(rows)


def _photos(result: Result) -> Iterator[str]:
    for name, file in zip(result.photo_names, track(result.photo_files, "photos")):
        uri = data_uri(read_photo(file).image, 80, _PHOTO)
        yield f'<figure><img src="{uri}" alt="{_text(name)}"><figcaption>{_text(name)}</figcaption></figure>'
