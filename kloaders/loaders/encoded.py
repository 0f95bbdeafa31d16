"""What loaders of encoded rows have in common: image options, RAM batches, the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from kloaders.core.checks import check_names, checked_class_names, checked_dtype
from kloaders.core.options import RamOptions
from kloaders.core.structure import Structure, flatten
from kloaders.engine.specs import FIRST_TRIES
from kloaders.formats.options import ImageOptions
from kloaders.loaders.options import PICTURES, LoaderOptions, ReadingOptions
from kloaders.loaders.ram_batches import TwoLevelLoader
from kloaders.plan.rng import Moment
from kloaders.sources.cache.encoded import cached_rows
from kloaders.sources.encoded import EncodedSource, fields_of
from kloaders.sources.files import Decode, readings_by_input
from kloaders.sources.hooks import HookSource, NamedSource, default_hook, overrides
from kloaders.sources.kept_rows import without
from kloaders.sources.quarantine import excluded
from kloaders.sources.ranged import ranged
from kloaders.sources.source import Source
from kloaders.sources.tables import listed

__all__ = ["EncodedLoader", "EncodedOptions", "encoded_options", "no_input"]


class EncodedOptions(ReadingOptions, total=False):
    """The options of loaders of encoded rows; see `EncodedLoader`."""

    class_names: Sequence[str] | None
    ram_batch_size: int | None
    ram_budget: int | str | None
    draw: Literal["windows", "global"]


def encoded_options(
    *,
    size: tuple[int, int] | int | dict[str, Any] | None = None,
    interpolation: str | dict[str, str] = "auto",
    aspect: str = "stretch",
    channels: int | dict[str, Any] | None = 3,
    rescale: float | None = None,
    dct_scaling: bool = False,
    max_pixels: int = ImageOptions.max_pixels,
    depth: int | None = None,
    decode: Decode | None = None,
    label_options: dict[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    ram_batch_size: int | None = None,
    ram_budget: int | str | None = None,
    draw: Literal["windows", "global"] = "global",
) -> dict[str, Any]:
    """These options, with their defaults."""
    return dict(locals())


def no_input(owner: str, names: Sequence[str]) -> str:
    """The error message if x= is missing."""
    return f"{owner}() got no x=, the columns of the input: there are {listed(list(names))}."


class EncodedLoader(TwoLevelLoader):
    """A loader of rows whose values, such as images and arrays, are decoded.

    Options that all of these loaders have:

    Args:
        size, interpolation, aspect, channels, rescale, dct_scaling, max_pixels, depth, label_options:
            how images are decoded; see `PathSequenceLoader`. If x is a dict, size, interpolation and
            channels may be dicts by input. With a dict as size, labels that are images keep their
            stored size, unless `label_options={"size": ...}`.
        decode: a function of an input's bytes that returns its array, used instead of these.
        class_names: the names of classes, for labels that are texts: each becomes its number in
            this list.
        ram_batch_size, ram_budget, draw: serve from RAM batches; see `RamBatchSequenceLoader`.
    """

    _rows: EncodedSource

    def _chosen(self, options: Any, own: Sequence[str]) -> dict[str, Any]:
        """Remove the options for rows from `options`, and check the rest; own: other permitted names."""
        title = type(self).__name__
        check_names(title, options, (*EncodedOptions.__annotations__, *own))
        given = cast("dict[str, Any]", options)
        chosen = encoded_options(
            **{k: given.pop(k) for k in encoded_options.__kwdefaults__ or {} if k in given}
        )
        if chosen["class_names"] is not None:
            chosen["class_names"] = checked_class_names(chosen["class_names"])
        if chosen["draw"] not in ("windows", "global"):
            raise ValueError(
                f'draw={chosen["draw"]!r:.80} is not known: choose "global" or "windows".'
            )
        return chosen

    def _fields(
        self, x: Any, y: Any, chosen: dict[str, Any], options: Any
    ) -> tuple[Structure, ...]:
        """The fields of each array of a sample."""
        images = {name: chosen[name] for name in PICTURES}
        images["dtype"] = checked_dtype(options.get("dtype"))
        self.decode = chosen["decode"]
        inputs, labels, self.input_options = readings_by_input(
            x, "x", self.decode, chosen["label_options"], **images
        )
        #: The image options; if inputs have separate options, those of the first one.
        self.image_options = next(iter(inputs.values()))
        return fields_of(x, y, (inputs, self.decode), labels, chosen["class_names"])

    def _start(
        self, rows: EncodedSource, batch_size: int, chosen: dict[str, Any], options: Any
    ) -> None:
        """Set up over these rows, without those that `exclude` lists."""
        names = excluded(chosen.pop("exclude", None), options.get("quarantine"))
        if names:
            rows = without(rows, names, options)
        if len(rows):
            rows.settle(FIRST_TRIES)
        two_levels = chosen["ram_batch_size"] is not None or chosen["ram_budget"] is not None
        ram = RamOptions(chosen["ram_batch_size"], chosen["ram_budget"], chosen["draw"])
        self._levels = {"ram": ram if two_levels else None}
        self._rows = rows
        self._begin(rows, batch_size, options)
        self.class_names = chosen["class_names"]

    @default_hook
    def load_sample(self, index: int) -> Any:
        """One sample from its row: x, or a tuple (x, y). Override it to change samples.

        `super().load_sample(index)` returns the sample as it is read. Several threads call it at once.
        Any exception becomes a SampleError that names the sample, or is handled according to
        `on_error`.
        """
        parts = self._rows.sample(index, Moment())
        return parts[0] if len(parts) == 1 else parts

    def _sourced(self, samples: int | Source, options: LoaderOptions) -> Source:
        kind, rows = type(self), self._rows
        by_batch, by_sample = overrides(kind, "load_batch"), overrides(kind, "load_sample")
        source: Source = ranged(rows, rows.opener, rows.fetch_ranges)
        if by_batch or by_sample:
            dtype = options.transforms.dtype
            source = HookSource(self, len(rows), dtype, by_batch=by_batch, base=source)
        fields = flatten(rows.fields)
        source = cached_rows(
            source,
            options.cache,
            options.work,
            decoded=rows.encoded and options.ram is None,
            name=rows.name,
            file_of=rows.file_of if rows.paths_of_all else None,
            paths=rows.paths_of_all,
            etag=rows.opener.etag,
            made_by=(rows.kind, rows.token, *(field.described() for field in fields)),
            functions={f"decode= of array {k}": field.decode for k, field in enumerate(fields)},
        )
        return NamedSource(source, self) if overrides(kind, "sample_name") else source
