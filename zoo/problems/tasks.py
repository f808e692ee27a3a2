"""Real models on real data, small enough for two cores and bundled with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.objective import Objective
from zoo.core.rng import Key


class SupportVectorTuning(Objective):
    """Tune a support-vector machine on the breast-cancer data: C, gamma and ten feature weights.

    The 569 biopsies have 30 features: mean, error and worst value of ten characteristics. A point is

        x = (log10 C, log10 gamma, log10 weight of characteristic 1, ..., 10)

    and its value the log-loss of a radial-basis support-vector machine's decision values f, taken as
    P(malignant) = 1 / (1 + exp(-2 f)), over five-fold cross-validation with fixed folds.

    Source of the data: Street, Wolberg and Mangasarian, *Nuclear feature extraction for breast tumor
    diagnosis*, 1993, as bundled with scikit-learn (no download).

    Example:
        >>> task = SupportVectorTuning()
        >>> bool(0 < task(task.start[None], key=Key(0))[0] < 0.2)
        True
    """

    unit = 1
    dim = 12
    bounds = ((-2.0, 4.0), (-5.0, 1.0), *(((-1.5, 1.5),) * 10))
    start = np.array([0.0, -1.5, *([0.0] * 10)])

    def __init__(self) -> None:
        self._folds: list[tuple[Any, ...]] | None = None

    def __call__(self, x: np.ndarray[Any, Any], *, key: Key) -> np.ndarray[Any, Any]:
        return np.array([self._scores(point)[0] for point in x])

    def accuracy(self, x: np.ndarray[Any, Any]) -> float:
        """Return the cross-validated accuracy of one point."""
        return self._scores(x)[1]

    def _scores(self, x: np.ndarray[Any, Any]) -> tuple[float, float]:
        from sklearn.svm import SVC

        weights = np.tile(10.0 ** x[2:], 3)
        losses, hits = [], []
        for train, train_labels, test, test_labels in self._data():
            # The seed decides nothing here; without one it would be drawn from the global generator.
            model = SVC(C=10.0 ** x[0], gamma=10.0 ** x[1], cache_size=50, random_state=0)
            model.fit(train * weights, train_labels)
            margin = model.decision_function(test * weights) * np.where(test_labels == 1, 1.0, -1.0)
            losses.append(np.logaddexp(0.0, -2.0 * margin))
            hits.append(margin > 0)
        return float(np.concatenate(losses).mean()), float(np.concatenate(hits).mean())

    def _data(self) -> list[tuple[Any, ...]]:
        if self._folds is None:
            from sklearn.datasets import load_breast_cancer
            from sklearn.model_selection import StratifiedKFold

            features, labels = load_breast_cancer(return_X_y=True)
            self._folds = []
            for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(features, labels):
                mean, deviation = features[train].mean(0), features[train].std(0)
                scaled = (features - mean) / deviation
                self._folds.append((scaled[train], labels[train], scaled[test], labels[test]))
        return self._folds
