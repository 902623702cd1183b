"""What a run computes on, and what machine that is."""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from fvgen.errors import UserError


def find_device(name: str | torch.device = "auto") -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1`` and so on as a device that works.

    Raises:
        UserError: it cannot be used here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def computes_alone(pool: ThreadPoolExecutor) -> None:
    """Let the one thread of a new pool compute without threads of OpenMP, while this one keeps its own.

    Each thread that computes would otherwise bring a team as large as the machine, idle or not; with more of them than
    cores OpenMP puts every team to sleep between any two operations, and a training takes half as long again.
    """

    def alone() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # makes it this thread's own number: PyTorch reads the last one set only once

    threads = torch.get_num_threads()
    pool.submit(alone).result()
    torch.set_num_threads(threads)


def device_name(device: torch.device) -> str:
    """What the GPU or the processor calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(errors="replace").splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def hardware(device: str | torch.device) -> dict[str, Any]:
    """The machine that seconds are measured on: processor, cores that this process may use, threads, GPU, versions."""
    device = torch.device(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": str(device),
        "cpu": device_name(torch.device("cpu")),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpu": device_name(device) if device.type == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def load() -> dict[str, float | None]:
    """How busy the machine is: ``load_at_start``, the processes that wanted to run in the last minute."""
    return {"load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None}
