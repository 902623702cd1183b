"""One Mitsuba surface for everything: each face of one big mesh looks up its own texture in one buffer.

Vectorised ray tracing runs the code of each surface instance by turns, so that dozens of surfaces cost more than one
that looks its colours up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Material:
    """A picture [h, w, 3] in sRGB, repeated over the plane, with one roughness; metals reflect their colour."""

    picture: np.ndarray
    roughness: float = 0.75
    metallic: bool = False


def surface(mi: Any, materials: list[Material], face_materials: np.ndarray) -> dict[str, Any]:
    """The Mitsuba dictionary of the surface; face_materials [faces] says which material each face of the mesh has."""
    import drjit as dr

    sizes = np.array([material.picture.shape[:2] for material in materials])
    starts = np.concatenate([[0], np.cumsum(sizes.prod(1))[:-1]])
    texels = mi.UInt32(np.concatenate([_packed(material.picture) for material in materials]))
    height, width, start = (mi.UInt32(a.astype(np.uint32)) for a in (sizes[:, 0], sizes[:, 1], starts))
    of_face = mi.UInt32(face_materials.astype(np.uint32))
    numbers = {
        "roughness": mi.Float([material.roughness for material in materials]),
        "metallic": mi.Float([float(material.metallic) for material in materials]),
    }

    class Colour(mi.Texture):
        """The linear colour at a hit."""

        def eval(self, si, active=True):
            which = dr.gather(mi.UInt32, of_face, si.prim_index, active)
            w, h = dr.gather(mi.UInt32, width, which, active), dr.gather(mi.UInt32, height, which, active)
            u, v = si.uv.x - dr.floor(si.uv.x), si.uv.y - dr.floor(si.uv.y)
            x = dr.minimum(mi.UInt32(u * mi.Float(w)), w - 1)
            y = dr.minimum(mi.UInt32((1 - v) * mi.Float(h)), h - 1)
            texel = dr.gather(mi.UInt32, texels, dr.gather(mi.UInt32, start, which, active) + y * w + x, active)
            root = mi.Color3f(mi.Float(texel & 1023), mi.Float((texel >> 10) & 1023), mi.Float(texel >> 20)) / 1023
            return root * root

        def is_spatially_varying(self):
            return True

        def mean(self):
            return 0.5

        def max(self):
            return 1.0

        def to_string(self):
            return "Colour[]"

    class Number(mi.Texture):
        """One of the materials' numbers at a hit."""

        def __init__(self, props):
            mi.Texture.__init__(self, props)
            self.numbers = numbers[props["name"]]

        def eval_1(self, si, active=True):
            which = dr.gather(mi.UInt32, of_face, si.prim_index, active)
            return dr.gather(mi.Float, self.numbers, which, active)

        def eval(self, si, active=True):
            return mi.Color3f(self.eval_1(si, active))

        def is_spatially_varying(self):
            return True

        def mean(self):
            return 0.5

        def max(self):
            return 1.0

        def to_string(self):
            return "Number[]"

    mi.register_texture("demo_colour", Colour)
    mi.register_texture("demo_number", Number)
    return {
        "type": "twosided",
        "bsdf": {
            "type": "principled",
            "base_color": {"type": "demo_colour"},
            "roughness": {"type": "demo_number", "name": "roughness"},
            "metallic": {"type": "demo_number", "name": "metallic"},
            "specular": 0.4,
        },
    }


def _packed(picture: np.ndarray) -> np.ndarray:
    """uint32 [h * w]: the square roots of linear red, green and blue, ten bits each."""
    colour = np.clip(picture, 0, 1)
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    root = (np.sqrt(linear) * 1023 + 0.5).astype(np.uint32).reshape(-1, 3)
    return root[:, 0] | (root[:, 1] << 10) | (root[:, 2] << 20)
