"""What a figure was measured on, and what a machine can do at most."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fvgen.devices import device_name
from fvgen.errors import UserError
from fvgen.models.speed import synchronize

_SECONDS = 1.0  # that each peak is measured for
_MATRIX = {"cpu": 2048, "cuda": 8192}  # side of the matrices multiplied
_COPIED = {"cpu": 1 << 28, "cuda": 1 << 32}  # bytes, well beyond any cache


@dataclass(frozen=True)
class Machine:
    """What a machine can do at most.

    Attributes:
        name: told beside the figures.
        tflops: 10^12 floating-point operations per second of matrix products, a multiply-add counted as two.
        gbytes_per_s: 10^9 bytes per second read from and written to memory together.
    """

    name: str
    tflops: float
    gbytes_per_s: float


# NVIDIA's data sheets, SXM5, without sparsity: half precision on the tensor cores, float32 outside of them.
_DATA_SHEETS = {"h100": (989.0, 67.0, 3350.0), "h200": (989.0, 67.0, 4800.0)}


def machine(name: str, dtype: torch.dtype, device: str = "cpu") -> Machine:
    """A machine by name: ``h100`` or ``h200`` from their data sheets, or ``this``, measured.

    Raises:
        UserError: for another name.
    """
    if name == "this":
        return measured_machine(torch.device(device), dtype)
    if name not in _DATA_SHEETS:
        raise UserError(f"there is no machine '{name}'; choose this, {', '.join(_DATA_SHEETS)}")
    half, single, bandwidth = _DATA_SHEETS[name]
    return Machine(f"{name.upper()}, data sheet", single if dtype == torch.float32 else half, bandwidth)


def measured_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """The best rates of one large matrix product and of one large copy, among those that fit in a second each."""
    side = _MATRIX.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    seconds = _fastest(lambda: torch.mm(a, b, out=product), device)
    source = torch.zeros(_COPIED.get(device.type, 1 << 28), dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    copying = _fastest(lambda: target.copy_(source), device)
    name = f"{device_name(device)}, measured with {torch.get_num_threads()} threads"
    return Machine(name, 2 * side**3 / seconds / 1e12, 2 * source.numel() / copying / 1e9)


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest call within :data:`_SECONDS`, the first one apart; at least one call."""
    run()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while best == float("inf") or time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
