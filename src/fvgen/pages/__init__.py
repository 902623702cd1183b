"""HTML files that need nothing but themselves: pictures and data inside, one look. Imports nothing else of fvgen."""

import base64
import io
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from torch import Tensor


def filled(package: str, template: str, parts: Mapping[str, str]) -> str:
    """A template of a package with ``@NAME@`` replaced, and ``@STYLE@`` by the common style.

    Args:
        package: where the template lies.
        template: its file name.
        parts: HTML by name, escaped already.
    """
    text = files(package).joinpath(template).read_text(encoding="utf-8")
    style = files("fvgen.pages").joinpath("style.css").read_text(encoding="utf-8")
    known = {"STYLE": style, **parts}
    return re.sub("@([A-Z]+)@", lambda match: known[match[1]], text)


def script_json(content: Any) -> str:
    """JSON for a ``<script type="application/json">``: nothing in it can end that element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return text.replace("</", "<\\/").replace("<!--", "<\\u0021--")


def data_uri(picture: Tensor, quality: int, longest: int | None = None) -> str:
    """A uint8 ``[H, W, 3]`` picture as the text of a JPEG, at most ``longest`` pixels long."""
    from PIL import Image

    image = Image.fromarray(picture.numpy())
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def chips(facts: Mapping[str, object]) -> str:
    """HTML for ``class="chips"``: names and values of some facts; those that are ``None`` or empty are left out."""
    known = {name: str(value) for name, value in facts.items() if value is not None and value != ""}
    return "".join(f"<span>{name} <b>{escape(value)}</b></span>" for name, value in known.items())


def duration(seconds: object) -> str | None:
    """Seconds as one reads them: ``12.3 s``, ``2 min 10 s``, ``1 h 5 min``; ``None`` where it is no number."""
    if not isinstance(seconds, int | float):
        return None
    if seconds < 59.95:
        return f"{seconds:.3g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
