"""An alphabet of straight strokes, drawn by us, for book spines, covers and prints."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

# Each letter lies in a box 4 wide and 6 high; strokes are polylines "xy xy ...", separated by commas.
STROKES = {
    "A": "00 26 40,12 32",
    "B": "00 06 36 45 44 33 03,33 42 41 30 00",
    "C": "45 36 16 05 01 10 30 41",
    "D": "00 06 26 44 42 20 00",
    "E": "40 00 06 46,03 33",
    "F": "00 06 46,03 33",
    "G": "45 36 16 05 01 10 30 41 43 23",
    "H": "00 06,40 46,03 43",
    "I": "20 26,10 30,16 36",
    "J": "01 10 20 31 36",
    "K": "00 06,46 03 40",
    "L": "06 00 40",
    "M": "00 06 22 46 40",
    "N": "00 06 40 46",
    "O": "10 01 05 16 36 45 41 30 10",
    "P": "00 06 36 45 44 33 03",
    "Q": "10 01 05 16 36 45 41 30 10,22 40",
    "R": "00 06 36 45 44 33 03,23 40",
    "S": "45 36 16 05 04 13 33 42 41 30 10 01",
    "T": "20 26,06 46",
    "U": "06 01 10 30 41 46",
    "V": "06 20 46",
    "W": "06 10 24 30 46",
    "X": "00 46,06 40",
    "Y": "06 23 46,23 20",
    "Z": "06 46 00 40",
}

WORDS = [
    "PARALLAX", "LIGHT", "NOISE", "FIELD", "ATLAS", "SHADOW", "MEADOW", "RIVER", "STONE",
    "VIEWS", "SCORE", "HARBOUR", "WINTER", "ORCHARD", "PIXEL", "RAYS", "TIDE", "LENS",
    "MIRROR", "FABLES", "GARDEN", "MAPS", "SALT", "EMBER", "NORTH", "CIPHER", "MOTION",
    "DEPTH", "POINTS", "CLAY", "TIMBER", "ECHO", "LOOM", "FOREST", "PRISM", "OCEAN",
    "VOYAGE", "LANTERN", "GRAIN", "FOCUS", "ARC", "HORIZON", "CAMERA", "MARBLE", "QUARTZ",
    "ZENITH", "JUNIPER", "WALTZ",
]  # fmt: skip


def text_mask(text: str, height: int, weight: float = 0.9) -> np.ndarray:
    """Coverage [height, w] in 0..1 of a line of capitals; weight is the width of a stroke in
    sixths of a letter's height. Spaces and unknown characters advance without ink.
    """
    scale = 4 * height / 8.0  # a margin of one unit on each side, drawn four times too large
    width = max(1, int(len(text) * 5.6 * scale + 2 * scale))
    image = Image.new("L", (width, 4 * height))
    draw = ImageDraw.Draw(image)
    for place, letter in enumerate(text):
        for stroke in filter(None, STROKES.get(letter, "").split(",")):
            points = [((1 + place * 5.6 + int(xy[0])) * scale, (7 - int(xy[1])) * scale) for xy in stroke.split()]
            draw.line(points, fill=255, width=max(1, round(weight * scale)), joint="curve")
    small = image.resize((max(1, width // 4), height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def title(rng: np.random.Generator, words: int = 2) -> str:
    """A made-up title."""
    return " ".join(rng.choice(WORDS, size=words, replace=False))
