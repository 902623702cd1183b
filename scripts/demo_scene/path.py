"""The cameras of the film: a person walks a gentle arc around the middle of the room."""

from __future__ import annotations

import numpy as np

PHOTOS = 5
BETWEEN = 14
FRAMES = (PHOTOS - 1) * (BETWEEN + 1) + 1
SPREAD = 46.0
"""Degrees between the first and the last view direction, about the vertical through the middle."""
FIELD_OF_VIEW = 60.0
"""Horizontal, in degrees."""


def is_photo(frame: int) -> bool:
    """Whether this frame of the path is one of the photographs."""
    return frame % (BETWEEN + 1) == 0


def camera(frame: int) -> np.ndarray:
    """The camera of one frame: `world_from_camera` [4, 4] with OpenGL axes (x right, y up, z back), metres, z up."""
    t = frame / (FRAMES - 1)
    angle = np.radians(SPREAD * (t - 0.5))
    middle = np.array([0.02, 0.62, 0.97]) + [0.08 * (t - 0.5), 0.0, 0.015 * np.sin(2 * np.pi * 1.5 * t)]
    distance = 2.95 + 0.12 * np.sin(np.pi * t) + 0.015 * np.sin(2 * np.pi * 3 * t)
    height = 1.42 + 0.07 * np.sin(2 * np.pi * 0.9 * t + 0.4) + 0.008 * np.sin(2 * np.pi * 5 * t)
    eye = np.array([middle[0] + distance * np.sin(angle), middle[1] - distance * np.cos(angle), height])
    forward = (middle - eye) / np.linalg.norm(middle - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    roll = np.radians(0.5 * np.sin(2 * np.pi * 1.2 * t))
    up = np.cross(right, forward)
    right, up = np.cos(roll) * right + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * right
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, up, -forward, eye
    return pose


def focal_length(width: int) -> float:
    """In pixels, of a picture `width` pixels wide."""
    return 0.5 * width / np.tan(np.radians(FIELD_OF_VIEW / 2))
