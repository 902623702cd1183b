"""What made some numbers: the code, the machine, the libraries."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fvgen import __version__

_PACKAGE = Path(__file__).resolve().parent.parent
_ROOMS = ("cameras", "diffusion", "scene", "rendering", "models", "pipeline.py", "evaluation")
_REPORTS = ("tables.py", "paper.py", "page.py", "plots.py", "sheets.py", "report.py", "provenance.py")


@cache
def code_hash() -> str:
    """SHA-256 over the source files that frames and scores depend on."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        place = _PACKAGE / room
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if not (room == "evaluation" and path.name in _REPORTS):
                digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def revision() -> str:
    """The git revision of a checkout (``-dirty`` with changes), empty for an installed package."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PACKAGE), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    if not git("ls-files", "__init__.py"):  # the package may lie in somebody else's repository, untracked
        return ""
    return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")


def software() -> dict[str, Any]:
    """Versions of what computes."""
    return {
        "fvgen": __version__,
        "revision": revision(),
        "code_sha256": code_hash(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def hardware(device: str) -> dict[str, Any]:
    """The machine that seconds were measured on."""
    found: dict[str, Any] = {"device": device, "cpu": _cpu_name(), "cores": os.cpu_count()}
    found["threads"] = torch.get_num_threads()
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
