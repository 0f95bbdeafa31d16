"""Guesses which features of a record are x and y, if the user does not specify them."""

from __future__ import annotations

from kloaders.core.structure import Structure
from kloaders.formats.errors import DecodeError
from kloaders.formats.tfrecord.examples import BYTES, FLOAT, INT64, Found, features_of, values_of
from kloaders.sources.tables import listed
from kloaders.sources.tfrecord.features import Decode, Feature
from kloaders.sources.tfrecord.leaves import DTYPE, SHAPE, is_picture
from kloaders.sources.tfrecord.pixels import pixels_in

__all__ = ["guessed"]

# Names that other writers use for the label of an image.
_LABELS = ("label", "labels", "y", "target", "targets", "class", "category", "image/class/label")


def guessed(
    record: bytes, decode: Decode | None, words: bool = False
) -> tuple[dict[str, Structure], str]:
    """Guess which features of this record are x and y; also describe the guess in words.

    x is each feature with an image or an array (with `decode`: the longest bytes), otherwise all
    numbers. y is a number with a label's name, or the only number next to an image. words: a label may
    be a text.

    Raises ValueError if no feature can be x.
    """
    try:
        found = {name: f for name, f in features_of(record).items() if f.kind}
    except DecodeError:
        if decode is None:
            raise
        found = {}
    if not found and decode is not None:
        return {"x": Feature("")}, "x is decode(record)"
    arrays = [name for name in found if name + SHAPE in found]
    own = {name + end for name in arrays for end in (SHAPE, DTYPE)}
    numbers = [n for n, f in found.items() if f.kind in (FLOAT, INT64) and n not in own]
    texts = {n: values_of(record, f) for n, f in found.items() if f.kind == BYTES and n not in own}
    pictures = [
        n
        for n, v in texts.items()
        if n in arrays
        or (v and (is_picture(v[0]) or pixels_in(v[0], n, record, found) is not None))
    ]
    if decode is not None and texts:
        pictures = [max(texts, key=lambda n: sum(map(len, texts[n])))]
    labels = [n for n in sorted(found) if n.lower() in _LABELS and n not in own]
    y = min(labels, key=lambda n: _LABELS.index(n.lower())) if labels else None
    inputs = sorted(n for n in {*pictures, *(n for n in arrays if n in numbers)} if n != y)
    if not inputs:
        inputs = sorted(n for n in numbers if n != y)
    elif y is None:
        others = [n for n in numbers if n not in inputs]
        y = others[0] if len(others) == 1 else None
    if y is not None and y in texts and y not in arrays and not words:
        y = None  # a label in words
    if not inputs:
        raise ValueError(
            f"the first record has {_described(record, found)}, none of which is an image, an "
            "array or a number to train on. Specify the features: "
            'features={"x": kl.Feature("NAME", shape=(28, 28, 1), dtype="uint8"), "y": "NAME"}, or '
            "decode=, a function of a feature's bytes."
        )
    x: Structure = Feature(inputs[0]) if len(inputs) == 1 else {n: Feature(n) for n in inputs}
    parts = {"x": x} if y is None else {"x": x, "y": Feature(y)}
    said = "x is " + ", ".join(map(repr, inputs)) + ("" if y is None else f", y is {y!r}")
    left = sorted(set(found) - set(inputs) - own - {y})
    return parts, said + (f"; left out: {', '.join(left)}" if left else "")


def _described(record: bytes, found: dict[str, Found]) -> str:
    kinds = {BYTES: "bytes", FLOAT: "float", INT64: "int64"}
    said = [f"{name!r} ({len(values_of(record, f))} {kinds[f.kind]})" for name, f in found.items()]
    return listed(said) if said else "no features"
