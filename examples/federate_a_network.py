"""A network learnt from numbers that fit into a text message
===========================================================

Five clients have pictures of digits, each more of some digits than of others, and train one network together.
It may contain anything, since nobody takes its gradient. ``decomfl`` has all clients try the same random
directions, which follow from a seed. What a client sends are the slopes it found, one number for each
direction; from their means everyone redoes the step.

.. code-block:: sh

    python examples/federate_a_network.py

So a network that is four times as large takes not a byte more, where ``fedzo`` and ``fedavg`` send it back
and forth in each round. Bytes are not all there is: ``fedavg``, which may take gradients, gets further.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt

import federated
import zoo
from federated.tasks.network import NetworkTask
from zoo.nn.data import digits
from zoo.nn.losses import cross_entropy
from zoo.nn.models.mlp import mlp

METHODS: dict[str, tuple[str, float, str]] = {
    "decomfl": ("slopes", 1.0, "-"),
    "fedzo": ("networks, from values", 0.5, "--"),
    "fedavg": ("networks, from gradients", 0.5, ":"),
}
SIZES = {16: {"learning_rate": 0.3}, 64: {"learning_rate": 0.1}}  # of decomfl

# %%
# ``NetworkTask`` makes clients of a network, a loss, and data that a partitioner deals to them. A value is
# the loss on a mini-batch of the client's, the same one for all points that are compared with each other.


def main(rounds: int = 40, workers: int = 1, seed: int = 0) -> dict[tuple[str, int], federated.Federation]:
    """Return a run for each method and hidden layer; where networks are sent, rounds are half as many."""
    shown, data = {}, digits()
    for hidden, options in SIZES.items():
        model = mlp((64, hidden, 10), key=zoo.Key(0))  # or any module of yours
        task = NetworkTask(
            model, cross_entropy, data, 5, partition="dirichlet:0.3", batch_size=32, vectorized=True
        )
        for method, (_, share, _) in METHODS.items():
            shown[method, hidden] = federated.federate(
                task,
                method,
                options=options if method == "decomfl" else {},
                rounds=round(share * rounds),
                measure_every=2,
                workers=workers,
                rng=seed,
            )
    return shown


# %%
# Accuracy is that on pictures that no client has. The lines of ``decomfl`` lie over the same bytes.


def draw(shown: dict[tuple[str, int], federated.Federation]) -> plt.Figure:
    """Draw accuracy over bytes and over queries."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), sharey=True)
    for (method, hidden), found in shown.items():
        history = found.history
        looked = history["accuracy"] == history["accuracy"]
        label = f"{METHODS[method][0]}, {len(found.x):,} weights"
        look = {"color": "C0" if hidden == min(SIZES) else "C1", "linestyle": METHODS[method][2]}
        sent = (history["up"] + history["down"])[looked] / 1e3
        left.plot(sent[1:], history["accuracy"][looked][1:], label=label, **look)
        if found.queries:
            right.plot(history["queries"][looked] / 1e3, history["accuracy"][looked], **look)
    left.set(
        xlabel="kilobytes, in both directions", xscale="log", title="share of pictures that are read rightly"
    )
    right.set(xlabel="thousands of queries", title="the same, where values are asked for")
    right.legend(handles=left.get_lines(), loc="lower right", fontsize=8)
    return figure


def table(shown: dict[tuple[str, int], federated.Federation]) -> str:
    """Return a line for each run."""
    return "\n".join(
        f"{method:8} {len(found.x):6,} weights {found.rounds:4} rounds {found.queries:7,} queries "
        f"{found.up / found.rounds / 5:8,.0f} bytes a client and round, "
        f"{(found.up + found.down) / 1e3:7,.0f} kB in all, accuracy {found.history['accuracy'][-1]:.3f}"
        for (method, _), found in shown.items()
    )


# %%

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="of decomfl")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shown = main(given.rounds, given.workers, given.seed)
    draw(shown)
    print(table(shown))
    plt.show()
