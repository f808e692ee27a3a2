"""One disturbance of a picture that misleads five classifiers, by asking
=======================================================================

Five clients have classifiers of digits, each trained on pictures of five of the ten digits only. None shows
its weights: given a picture, it answers how far the right digit is ahead of the next best, its margin. Wanted
is one disturbance of the picture, no pixel by more than .3, under which the mean of the margins is below 0.

.. code-block:: sh

    python examples/federate_attack.py

Whoever defends such classifiers wants to know how many queries that takes. A surrogate remembers what it was
told about the last steps, and takes fewer. How many fewer depends on what it is compared with: ``fedzo`` with
the twenty directions of the papers needs eight times as many, with five directions and longer steps half as
many again as the surrogate.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import federated

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "fzoos": (
        "fzoos",
        {"num_steps": 5, "learning_rate": 0.04, "start_queries": 5, "step_queries": 2, "round_queries": 5},
    ),
    "fedzo, 5 directions": ("fedzo", {"num_steps": 3, "learning_rate": 0.06, "num_directions": 5}),
    "fedzo, 20 directions": ("fedzo", {"num_steps": 5, "learning_rate": 0.02, "num_directions": 20}),
}

# %%
# ``task_seed`` makes the clients and their classifiers the same for all pictures and methods, and ``target``
# ends a run as soon as F is below it.


def main(images: int = 10, rounds: int = 8, workers: int = 1) -> dict[str, list[federated.Federation]]:
    """Return a run of each method for each picture."""
    return {
        label: [
            federated.federate(
                "attack",
                name,
                options=options,
                task_options={"image": image},
                task_seed=0,
                target=-1e-6,
                rounds=rounds,
                workers=workers,
                rng=image,
            )
            for image in range(images)
        ]
        for label, (name, options) in METHODS.items()
    }


def needed(runs: list[federated.Federation]) -> np.ndarray:
    """Return the queries after which each picture misled the classifiers, infinite where it never did."""
    return np.array([run.queries if run.value < 0 else np.inf for run in runs])


# %%
# On the left, how many pictures are done by how many queries. On the right, a picture, the disturbance, and
# what misleads.


def draw(shown: dict[str, list[federated.Federation]]) -> plt.Figure:
    """Draw successes over queries, and the first picture before and after."""
    from federated.tasks.attack import Attack
    from federated.tasks.lookup import as_task
    from zoo import Key

    figure, axes = plt.subplot_mosaic(
        [["left", "was", "added", "is"]], figsize=(9.6, 3.6), width_ratios=[3, 1, 1, 1]
    )
    for method, runs in shown.items():
        done = np.sort(needed(runs))
        count = int(np.isfinite(done).sum())
        axes["left"].step([0, *done[:count]], np.arange(count + 1), where="post", label=method)
    axes["left"].set(xlabel="queries, of all clients", title=f"pictures that mislead, of {len(done)}")
    axes["left"].legend(loc="lower right")
    task = as_task("attack", {"image": 0}, key=Key(0).fold("task"))
    assert isinstance(task, Attack)
    change = task.epsilon * (2 * shown["fzoos"][0].x - 1)
    image = task.image.reshape(8, 8)
    for name, pixels, limits in (
        ("was", image, (0, 1)),
        ("added", change.reshape(8, 8), (-task.epsilon, task.epsilon)),
        ("is", image + change.reshape(8, 8), (0, 1)),
    ):
        axes[name].imshow(pixels, cmap="gray", vmin=limits[0], vmax=limits[1])
        axes[name].set(xticks=[], yticks=[], title=f"was {task.label}" if name == "was" else name)
        axes[name].grid(False)
    return figure


def table(shown: dict[str, list[federated.Federation]]) -> str:
    """Return what each method needed."""
    lines = []
    for method, runs in shown.items():
        done = needed(runs)
        median = np.median(done[np.isfinite(done)])
        rounds = max(run.rounds for run in runs)
        lines.append(
            f"{method:22}{np.isfinite(done).sum():3} of {len(done)} pictures, queries by the median one "
            f"{median:6,.0f}, in all {sum(run.queries for run in runs):7,}, rounds at most {rounds}"
        )
    return "\n".join(lines)


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=8, help="at most, for each picture")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    shown = main(given.images, given.rounds, given.workers)
    draw(shown)
    print(table(shown))
    plt.show()
