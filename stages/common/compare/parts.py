"""The error of each part of an output: some hold values of several kinds, such as a detector's boxes and scores."""

from dataclasses import dataclass, field

import numpy as np

from stages.common.moments import pooled

LARGEST = 256
"""Parts an output may have; a longer axis counts places, not kinds."""


def _zeros() -> np.ndarray:
    return np.zeros(0)


@dataclass
class Parts:
    """Sums for each index along the shortest axis of a sample's values, float64 [parts].

    Attributes:
        axis: the axis, counted with that of the samples; 0 if nothing was added, None if samples differ in it, or if it
            is longer than `LARGEST`.
        count: values of a part.
        mean: of the reference; `spread` is the sum of squared distances from it, `noise` of squared differences.
    """

    axis: int | None = 0
    count: int = 0
    mean: np.ndarray = field(default_factory=_zeros)
    spread: np.ndarray = field(default_factory=_zeros)
    noise: np.ndarray = field(default_factory=_zeros)

    def update(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add finite values: float64 [n, ...] of the same shape."""
        lengths = [(length, -at, at) for at, length in enumerate(reference.shape) if at and length > 1]
        length, _, axis = min(lengths, default=(LARGEST + 1, 0, 0))
        if length > LARGEST:
            self.axis = None
            return
        others = tuple(at for at in range(reference.ndim) if at != axis)
        mean = reference.mean(axis=others)
        spread = np.square(reference - np.expand_dims(mean, others)).sum(axis=others)
        noise = np.square(candidate - reference).sum(axis=others)
        self.merge(Parts(axis, reference.size // length, mean, spread, noise))

    def merge(self, other: "Parts") -> None:
        """Add the sums of other values."""
        if other.axis == 0 or self.axis is None:
            return
        if self.axis == 0:
            self.axis, self.count = other.axis, other.count
            self.mean, self.spread, self.noise = other.mean, other.spread, other.noise
            return
        if other.axis != self.axis or len(other.mean) != len(self.mean):
            self.axis = None
            return
        counts = self.count, other.count
        self.mean, self.spread = pooled(counts, (self.mean, other.mean), (self.spread, other.spread))
        self.noise = self.noise + other.noise
        self.count += other.count

    @property
    def std(self) -> list[float] | None:
        """Standard deviation of the reference of each part; None as for `nrmse`."""
        return np.sqrt(self.spread / self.count).tolist() if self.axis else None

    @property
    def nrmse(self) -> list[float | None] | None:
        """RMS difference of each part over the standard deviation of its reference; None for a part that is constant.

        The whole is None if the samples have no such axis.
        """
        if not self.axis:
            return None
        return [
            float(np.sqrt(noise / spread)) if spread > 0 else None
            for noise, spread in zip(self.noise, self.spread, strict=True)
        ]
