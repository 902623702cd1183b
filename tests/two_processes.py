"""Two processes started as torchrun would."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def free_port() -> str:
    """A port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def together(code: str) -> list[int]:
    """Exit codes of two processes that run code, one thread each; they import the tests' modules."""
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parent,
        )
        for rank in range(2)
    ]
    return [run.wait(900) for run in runs]
