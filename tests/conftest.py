"""Shared fixtures. Real photos and most golden numbers live outside the repository; tests that need them say so."""

import os
from pathlib import Path

import pytest

from golden_numbers import FOLDERS, GoldenSet, golden_sets

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real scenes to measure on (``FVGEN_SHARED``, default ``../shared``)."""
    folder = Path(os.environ.get("FVGEN_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"REAL DATA ABSENT: {folder} (set FVGEN_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden_set(request: pytest.FixtureRequest) -> GoldenSet:
    """Numbers from the real teacher's code: each set that has the files named by the test's ``golden`` mark."""
    return request.param


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(*files): runs on every set of golden numbers that has these files")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_set" not in metafunc.fixturenames:
        return
    needed = {name for mark in metafunc.definition.iter_markers("golden") for name in mark.args}
    assert needed, f"{metafunc.definition.nodeid}: say with a golden mark which files it needs"
    sets = golden_sets(*needed)
    absent = f"GOLDEN NUMBERS ABSENT: no set with {', '.join(sorted(needed))} in {FOLDERS[0]} (set FVGEN_GOLDEN)"
    nothing = pytest.param(None, id="absent", marks=pytest.mark.skip(reason=absent))
    metafunc.parametrize(
        "golden_set", sets or [nothing], ids=[one.suffix for one in sets] or None, indirect=True, scope="session"
    )
