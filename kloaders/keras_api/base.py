"""The base class that makes Keras accept a loader.

In the main process it is Keras' own `PyDataset`. A worker process makes samples and never trains: its
base class is a plain object, so that only the main process imports Keras and TensorFlow.
TF_USE_LEGACY_KERAS=1 chooses Keras 2.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from kloaders.core.messages import warn

__all__ = ["WORKER", "Sequence", "keeps_adapters"]

#: The environment variable that marks our worker processes.
WORKER = "KLOADERS_WORKER"


class _Plain:
    """The base class in a worker process, which needs nothing of a Sequence."""

    def __init__(self, **_: Any) -> None:
        pass


if TYPE_CHECKING or os.environ.get(WORKER):
    Sequence = _Plain
elif os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True"):
    from tf_keras.utils import Sequence as _Keras2Sequence

    class Sequence(_Keras2Sequence):
        """Keras 2's Sequence, which takes no options and has no hook but `on_epoch_end`."""

        def __init__(self, **_: Any) -> None:
            warn(
                "tf_keras asks for batches by number, and does not say when an epoch begins or "
                "what it is for. So with shuffle=None fit() mixes whole batches, not samples; in "
                "mixed order no batch is made ahead, and RAM batches are not used. For training "
                "pass shuffle=True to the loader and shuffle=False to fit().",
                once="tf_keras",
            )
else:
    from keras.utils import PyDataset as Sequence


def keeps_adapters() -> bool:
    """Whether the backend keeps Keras' adapters, and with them their Sequences, alive."""
    keras = sys.modules.get("keras")
    return keras is not None and keras.backend.backend() == "tensorflow"
