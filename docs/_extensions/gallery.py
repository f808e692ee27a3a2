"""How examples run and look where the gallery is made of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

# What is left out runs as it is. Ray would take longer to start than the rest takes to run.
ARGUMENTS = {"tune_svm": ["--budget", "200", "--processes"]}
STYLE = Path(__file__).with_name("gallery.mplstyle")


def arguments(gallery: dict[str, Any], script: dict[str, Any]) -> list[str]:  # noqa: ARG001 - as prescribed
    """Return the command line of an example."""
    found = ARGUMENTS.get(Path(script["src_file"]).stem, [])
    return [*found, "--out", tempfile.mkdtemp()] if found else []


def set_style(gallery: dict[str, Any], name: str) -> None:  # noqa: ARG001 - as prescribed
    """Give pictures their colours, before and after each example."""
    plt.rcdefaults()
    plt.style.use(STYLE)
