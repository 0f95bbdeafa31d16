"""A loader over a Hugging Face Dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kloaders.core.options import shows_options
from kloaders.loaders.encoded import EncodedLoader, EncodedOptions, encoded_options
from kloaders.sources.huggingface import HuggingFaceSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["from_huggingface"]


@shows_options(EncodedOptions, encoded_options)
def from_huggingface(
    dataset: Any,
    x: Any = "image",
    y: Any = None,
    batch_size: int = 32,
    **options: Unpack[EncodedOptions],
) -> EncodedLoader:
    """A loader over a `datasets.Dataset`, in any order: shuffled as a whole.

    Images stay encoded until they are read, and several threads decode them: `size=`, `cache=` and
    other options work as for files. If the label is a ClassLabel, its names are in `class_names`, and
    `class_balance=True` and `stratify=True` work.

    Args:
        dataset: one split of a data set, after `select`, `filter`, `map` and `shuffle`. A format such
            as "torch" is ignored.
        x: the columns of the input: a name; "column:key" for a part of a struct; a list of
            names for a row of float32 numbers; a tuple or dict of these for several inputs.
        y: the columns of the label, in the same form; None for none.
        batch_size: samples per batch.
        size, interpolation, aspect, channels, rescale, dct_scaling, max_pixels, label_options: how
            images are decoded; see `PathSequenceLoader`.
        decode: a function of an input's value, such as the bytes of a sound, that returns its array;
            for labels `label_options={"decode": ...}`.
        class_names: the names of classes, for labels that are texts: each is replaced by its index.
        ram_batch_size, ram_budget, draw: serve from RAM batches; see `RamBatchSequenceLoader`.
        **options: see `SequenceLoader`.

    Raises:
        TypeError: it is not a Dataset, but a dict of splits or a stream, or has its own transform.
        ValueError: the column does not exist.
    """
    _check(dataset)
    return _HuggingFaceLoader(dataset, x, y, batch_size, **options)


class _HuggingFaceLoader(EncodedLoader):
    """The loader class of `from_huggingface`."""

    def __init__(
        self, dataset: Any, x: Any, y: Any, batch_size: int, **options: Unpack[EncodedOptions]
    ) -> None:
        chosen = self._chosen(options, ())
        rows = HuggingFaceSource(dataset, self._fields(x, y, chosen, options))
        self._start(rows, batch_size, chosen, options)
        if self.class_names is None:
            self.class_names = rows.class_names()


def _check(dataset: Any) -> None:
    """Raise TypeError unless it is a Dataset whose rows can be read by number."""
    kinds = {kind.__name__ for kind in type(dataset).__mro__}
    if kinds & {"DatasetDict", "IterableDatasetDict"}:
        splits = ", ".join(map(repr, dataset))
        raise TypeError(
            f"this is a {type(dataset).__name__} of the splits {splits}: select one, such as "
            f"from_huggingface(dataset[{next(iter(dataset), 'train')!r:.80}])."
        )
    if "IterableDataset" in kinds:
        raise TypeError(
            "this is an IterableDataset, which has no rows by number: load it without "
            "streaming=True."
        )
    if not hasattr(dataset, "with_format") or not hasattr(dataset, "column_names"):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}, expected a datasets.Dataset, as load_dataset(..., "
            'split="train") returns. For any other object with len(d) and d[i] use from_source(d).'
        )
    if dataset.format.get("type") == "custom":
        raise TypeError(
            "this Dataset has its own transform (set_transform), but from_huggingface reads "
            "rows as they are stored: pass dataset.with_format(None) and a transform=, or use "
            "from_source(dataset), which applies it."
        )
