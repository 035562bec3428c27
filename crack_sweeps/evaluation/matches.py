"""Count what found its partner: predicted things near a true one, true things near a predicted one; and the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from crack_sweeps.evaluation.scores import share


@dataclass(frozen=True, eq=False)
class Matches:
    """Numbers of pixels of a mask, of its rim or of its skeleton, one entry per image (or one for a whole set).

    Args:
        predicted_N: How many were predicted.
        predicted_matched_N: How many of these have a true one as near as the tolerance asks.
        true_N: How many there are.
        true_matched_N: How many of these have a predicted one as near.
    """

    predicted_N: Float64[np.ndarray, " N"]
    predicted_matched_N: Float64[np.ndarray, " N"]
    true_N: Float64[np.ndarray, " N"]
    true_matched_N: Float64[np.ndarray, " N"]

    def precision(self) -> Float64[np.ndarray, " N"]:
        """Share of the predicted that is matched; 1 where nothing is there and nothing predicted, else 0 of nothing."""
        return np.where(self._nothing(), 1.0, share(self.predicted_matched_N, self.predicted_N))

    def recall(self) -> Float64[np.ndarray, " N"]:
        """Share of the true that is matched; 1 where nothing is there and nothing predicted, else 0 of nothing."""
        return np.where(self._nothing(), 1.0, share(self.true_matched_N, self.true_N))

    def f1(self) -> Float64[np.ndarray, " N"]:
        """Harmonic mean of the two; 0 where both are 0."""
        precision, recall = self.precision(), self.recall()
        return share(2 * precision * recall, precision + recall)

    def iou(self) -> Float64[np.ndarray, " N"]:
        """Matched true ones, over these and the unmatched of both sides."""
        union = self.true_N + self.predicted_N - self.predicted_matched_N
        return np.where(self._nothing(), 1.0, share(self.true_matched_N, union))

    def _nothing(self) -> Bool[np.ndarray, " N"]:
        nothing_N: Bool[np.ndarray, " N"] = self.predicted_N + self.true_N == 0
        return nothing_N
