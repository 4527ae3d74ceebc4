"""Where a benchmark ran: what is needed to run it again."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

PACKAGES = ("trimem", "torch", "transformers", "sentence-transformers", "sqlalchemy")


def environment() -> dict[str, Any]:
    """Return versions, processor and threads."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **{package: version(package) for package in PACKAGES},
    }
