"""The normalisation of Keras' ImageDataGenerator: scaling, centring, whitening."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kloaders.core.arrays import Array
from kloaders.core.messages import warn

__all__ = ["Standardizer", "StandardizingTransform"]

# Keras adds this to a standard deviation, which may be zero.
_TINY = 1e-6


class Standardizer:
    """The options of ImageDataGenerator that normalise images, and the statistics from `fit`.

    Attributes:
        mean: the mean of each channel, floats of shape (1, 1, channels); None until `fit`.
        std: the standard deviation of each channel, of the same shape; None until `fit`.
        zca_whitening_matrix: shape (values per image, values per image); None until `fit`.
    """

    def __init__(
        self,
        *,
        featurewise_center: bool,
        samplewise_center: bool,
        featurewise_std_normalization: bool,
        samplewise_std_normalization: bool,
        zca_whitening: bool,
        zca_epsilon: float,
        rescale: float | None,
        preprocessing_function: Callable[[Array], Array] | None,
        dtype: np.dtype[Any],
    ) -> None:
        if zca_whitening and featurewise_std_normalization:
            warn("zca_whitening replaces featurewise_std_normalization.")
            featurewise_std_normalization = False
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.featurewise_std_normalization = featurewise_std_normalization
        self.featurewise_center = (
            featurewise_center or featurewise_std_normalization or zca_whitening
        )
        self.samplewise_std_normalization = samplewise_std_normalization
        self.samplewise_center = samplewise_center or samplewise_std_normalization
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.dtype = dtype
        centred = self.samplewise_center or self.featurewise_center
        if self.dtype.kind != "f" and (rescale or centred):
            raise ValueError(
                f"dtype={self.dtype.name!r:.80} cannot represent rescaled or normalised values: leave "
                "dtype out, for float32."
            )
        self.mean: Array | None = None
        self.std: Array | None = None
        self.zca_whitening_matrix: Array | None = None

    @property
    def normalises(self) -> bool:
        """Whether an image is changed by more than `rescale`."""
        return bool(
            self.preprocessing_function is not None
            or self.samplewise_center
            or self.featurewise_center
        )

    def check_fitted(self) -> None:
        """Raise ValueError if statistics of the data are needed and `fit` was not called."""
        if self.featurewise_center and self.mean is None:
            raise ValueError(
                "featurewise_center, featurewise_std_normalization and zca_whitening need statistics "
                "of the data: call datagen.fit(x) with some images first."
            )

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Compute mean, standard deviation and ZCA of some images, for featurewise_* and zca_whitening.

        Args:
            x: images, (samples, height, width, channels).
            augment: must be False: options that draw random numbers are not applied here.
            rounds: only for augment; ignored.
            seed: only for augment; ignored.

        Raises:
            ValueError: x has another number of axes, or augment is True.
        """
        if augment:
            raise ValueError(
                "augment=True: images are not augmented here. Pass augmented images to fit(), such as "
                "keras.Sequential(datagen.layers())(x, training=True)."
            )
        del rounds, seed
        values = np.array(x, self.dtype)
        if values.ndim != 4:
            raise ValueError(
                f"x has shape {values.shape}, expected (samples, height, width, channels)."
            )
        if self.rescale:
            values *= self.rescale
        if self.featurewise_center:
            self.mean = values.mean(axis=(0, 1, 2)).reshape(1, 1, -1)
            values -= self.mean
        if self.featurewise_std_normalization:
            self.std = values.std(axis=(0, 1, 2)).reshape(1, 1, -1)
        if self.zca_whitening:
            flat = values.reshape(len(values), -1)
            axes, spread, _ = np.linalg.svd(flat.T, full_matrices=False)
            self.zca_whitening_matrix = (
                axes * (np.sqrt(len(flat)) / (spread + self.zca_epsilon))
            ) @ axes.T

    def standardize(self, x: Array) -> Array:
        """Normalise an image, or several, as the options say. -> a new array of `dtype`."""
        x = np.asarray(x)
        return self.standardized(x, x.dtype if x.dtype.kind == "f" else self.dtype)

    def standardized(self, x: Array, working: np.dtype[Any]) -> Array:
        """`standardize`, computed in the dtype `working`: Keras uses another for files than for arrays."""
        x = np.array(x, working)
        if self.preprocessing_function is not None:
            x = self.preprocessing_function(x)
        if self.rescale:
            x = x * (x.dtype.type(self.rescale) if x.dtype.kind == "f" else self.rescale)
        if self.samplewise_center:
            x = x - np.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x = x / (np.std(x, keepdims=True) + _TINY)
        if self.mean is not None:
            x = x - self.mean
        if self.std is not None:
            x = x / (self.std + _TINY)
        if self.zca_whitening_matrix is not None:
            flat = x.reshape(-1, int(np.prod(x.shape[-3:])))
            x = (flat @ self.zca_whitening_matrix).reshape(x.shape)
        return np.asarray(x, self.dtype)


class StandardizingTransform:
    """A transform of one sample: the user's transform, then the generator's standardization.

    Args:
        standardizer: the standardization.
        transform: the user's transform, or None.
        working: the dtype in which values are computed.
        twice: whether the image is its own label.
    """

    def __init__(
        self, standardizer: Standardizer, transform: Any, working: np.dtype[Any], twice: bool
    ) -> None:
        self.standardizer, self.transform = standardizer, transform
        self.working, self.twice = working, twice

    def __call__(self, x: Any, y: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        if self.transform is not None:
            x, y = self.transform(x, y, rng)
        if isinstance(x, tuple):
            return (self.standardizer.standardized(x[0], self.working), *x[1:]), y
        x = self.standardizer.standardized(x, self.working)
        return x, (x if self.twice else y)
