"""Every example in every docstring runs, and shows what it says."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
import sklearn.svm  # noqa: F401 - here, since importing it moves the generator of `random`
import torch  # noqa: F401 - here, or its generator would not be among those that are put back

from tests.architecture.test_imports import FILES, module_of
from zoo.core.rng import Key, keyed_generators


@pytest.mark.parametrize("name", [module_of(path) for path in FILES])
def test_examples_in_docstrings(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in doctest.DocTestFinder().find(module, name, extraglobs={"np": np}):
        with keyed_generators(Key(0)):  # layers of torch take their first weights from there
            runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_every_method_shows_itself() -> None:
    from zoo.registry import list_methods

    finder = doctest.DocTestFinder(recurse=False)
    bare = [
        name
        for name, method in list_methods().items()
        if not any(t.examples for t in finder.find(method.factory))
    ]
    assert not bare, f"without an example: {', '.join(bare)}"
