"""Scales on which measures are compared: their spreads over seeds depend less on the mean there."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

_LEAST = 1e-8  # smaller losses count as this one


@dataclasses.dataclass(frozen=True)
class Scale:
    """A scale for the tests of a measure.

    Attributes:
        name: logit for shares such as accuracies and F1; log for losses; identity keeps the values.
        examples: number of examples that a share is measured on. The logit of x is that of (x N + 1/2) / (N + 1), so
            that 0 and 1 are finite.

    References:
        Haldane, The estimation and significance of the logarithm of a ratio of frequencies (1956), for the correction.
    """

    name: Literal["identity", "logit", "log"] = "identity"
    examples: float = math.inf

    def apply(self, values: Any) -> np.ndarray:
        """Returns values of the measure on this scale."""
        values = np.asarray(values, np.float64)
        if self.name == "identity":
            return values
        if self.name == "log":
            return np.log(np.maximum(values, _LEAST))
        n = min(self.examples, 1 / _LEAST)
        return np.log(values * n + 0.5) - np.log((1 - values) * n + 0.5)

    def invert(self, values: Any) -> np.ndarray:
        """Returns values of this scale as values of the measure."""
        values = np.asarray(values, np.float64)
        if self.name == "identity":
            return values
        if self.name == "log":
            return np.exp(np.minimum(values, 700))
        n = min(self.examples, 1 / _LEAST)
        return np.clip(((n + 1) / (1 + np.exp(-np.clip(values, -700, 700))) - 0.5) / n, 0, 1)

    def rounding(self, value: float) -> float:
        """Returns the variance that rounding to whole examples causes around a value of this scale: 1/12 of a step²."""
        if self.name != "logit" or math.isinf(self.examples):
            return 0.0
        share = float(np.clip(self.invert(value), 1 / self.examples, 1 - 1 / self.examples))
        return (1 / (self.examples * share * (1 - share))) ** 2 / 12

    def invert_difference(self, middle: float, difference: Any) -> np.ndarray:
        """Returns a difference of this scale as one of the measure, of two values around `middle`, a value here.

        It increases with `difference` and has its sign, so a transformed interval excludes zero if and only if the
        interval does. No difference exceeds the range of the measure.
        """
        half = np.asarray(difference, np.float64) / 2
        return self.invert(middle + half) - self.invert(middle - half)


IDENTITY = Scale()
