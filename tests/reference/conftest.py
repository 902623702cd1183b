"""The packages that the metrics are compared with; tests skip loudly where one is absent (`make test-reference`)."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

# Torchvision of PyPI is linked against CUDA. Beside a torch without CUDA its compiled part does not load, and then its
# Python part stops at the first operator of that part whose shape rule it wants to register. The bare schemas are
# enough for what lpips and pytorch-fid take from it, which are networks.
_OPERATORS = [
    "nms", "qnms", "roi_align", "qroi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align",
    "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward",
]  # fmt: skip
_schemas = torch.library.Library("torchvision", "FRAGMENT")


def _import_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in _OPERATORS:
            _schemas.define(f"{name}(Tensor x) -> Tensor")
        importlib.import_module("torchvision")


def _package(name: str) -> ModuleType:
    """The package, or a skip; a failure where FVGEN_REQUIRE_REFERENCE is set, as `make test-reference` does."""
    top = name.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        line = f"REFERENCE PACKAGE ABSENT: {top} (make test-reference)"
        if os.environ.get("FVGEN_REQUIRE_REFERENCE"):
            pytest.fail(line)
        pytest.skip(line)
    if importlib.util.find_spec("torchvision") is not None:
        _import_torchvision()  # before whatever imports it unprepared
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def package() -> Callable[[str], ModuleType]:
    """Imports a reference package by name."""
    return _package
