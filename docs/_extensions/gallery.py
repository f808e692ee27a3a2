"""How examples run and look where the gallery is made of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

# What is left out runs as it is. Ray would take longer to start than the rest takes to run.
ARGUMENTS = {"tune_svm": ["--budget", "200", "--processes"]}
ORDER = (
    "cma_in_a_valley",
    "swarm_on_a_contour",
    "gradient_is_all_you_need",
    "methods_compared",
    "light_and_stiff",
    "train_a_network",
    "evolve_maze",
    "evolve_cartpole",
    "evolve_lunar_lander",
    "evolve_half_cheetah",
    "evolve_frostbite",
    "federate_quadratic",
    "federate_attack",
    "federate_a_network",
    "federate_your_own",
    "mixed_variables",
    "solver_in_the_loop",
    "black_box_defence",
    "fine_tune_in_the_memory_of_inference",
    "honest_values",
)
STYLE = Path(__file__).with_name("gallery.mplstyle")


class Order:
    """The order of examples: what is easiest to look at first."""

    def __init__(self, folder: str) -> None:
        del folder

    def __call__(self, name: str) -> tuple[int, str]:
        """Return what to sort by."""
        stem = Path(name).stem
        return (ORDER.index(stem) if stem in ORDER else len(ORDER)), stem


def arguments(gallery: dict[str, Any], script: dict[str, Any]) -> list[str]:  # noqa: ARG001 - as prescribed
    """Return the command line of an example."""
    found = ARGUMENTS.get(Path(script["src_file"]).stem, [])
    return [*found, "--out", tempfile.mkdtemp()] if found else []


def set_style(gallery: dict[str, Any], name: str) -> None:  # noqa: ARG001 - as prescribed
    """Give pictures their colours, before and after each example."""
    plt.rcdefaults()
    plt.style.use(STYLE)
