"""Shared fixtures. Real photos and golden numbers live outside the repository; tests that need them skip loudly."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real scenes to measure on (``FVGEN_SHARED``, default ``../shared``)."""
    folder = Path(os.environ.get("FVGEN_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"REAL DATA ABSENT: {folder} (set FVGEN_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with numbers from the real teacher's code (``FVGEN_GOLDEN``, default ``../shared/golden``)."""
    folder = Path(os.environ.get("FVGEN_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"GOLDEN NUMBERS ABSENT: {folder} (set FVGEN_GOLDEN)")
    return folder
