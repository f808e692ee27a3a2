"""What the optional dependencies give, and whether they are there."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

EXTRAS = {
    "gp": ("the method `gp`, Bayesian optimization for expensive objectives", ("scikit-learn",)),
    "optuna": ("zoo.optuna: methods as samplers of Optuna's studies", ("optuna",)),
    "serve": ("zoo serve: runs on a page that updates itself", ("plotly",)),
    "tensorboard": ("--log tensorboard", ("tensorboard",)),
    "mlflow": ("--log mlflow", ("mlflow-skinny",)),
    "wandb": ("--log wandb, Weights & Biases", ("wandb",)),
    "notebook": ("progress bars in notebooks", ("ipywidgets", "tqdm")),
    "rl": ("environments of Gymnasium, with Box2D and MuJoCo", ("gymnasium",)),
    "atari": ("Atari games", ("ale-py", "gymnasium")),
    "hf": ("language models of Hugging Face", ("accelerate", "peft", "transformers")),
    "bench": (
        "what benchmarks/ compares with: COCO, IOHprofiler, Optuna, CBXpy",
        ("cbx", "coco-experiment", "ioh", "optuna", "psutil", "scikit-learn"),
    ),
    "docs": ("building the documentation", ("furo", "myst-parser", "sphinx", "sphinx-gallery")),
}
"""What an extra gives, and the distributions it consists of."""


@dataclass(frozen=True)
class Extra:
    """An optional dependency.

    Attributes:
        name: Its name.
        gives: What it is for.
        versions: The version of each distribution that belongs to it, None where that is missing.
    """

    name: str
    gives: str
    versions: dict[str, str | None]

    @property
    def is_installed(self) -> bool:
        """Whether all of it is there."""
        return None not in self.versions.values()

    @property
    def command(self) -> str:
        """What installs it."""
        return f'pip install {_options()}"{_origin()}[{self.name}]"'


def find(name: str) -> Extra:
    """Return an extra by name."""
    gives, distributions = EXTRAS[name]
    return Extra(name, gives, {one: _version(one) for one in distributions})


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _origin() -> str:
    """Return what pip is to be given: the name, or the source tree that was installed."""
    return _tree() or "gradfree"


def _options() -> str:
    return "-e " if _tree() else ""


def _tree() -> str:
    # A source tree that is the working directory has a distribution of its own, which does not say it.
    for distribution in importlib.metadata.distributions(name="gradfree"):
        if said := distribution.read_text("direct_url.json"):
            source = json.loads(said)
            if source.get("dir_info", {}).get("editable"):
                return unquote(urlsplit(source["url"]).path)
    return ""
