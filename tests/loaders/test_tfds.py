"""TensorFlow Datasets: encoded images decoded here, classes known by name; its package once for real."""

import sys
import types

import numpy as np
import pytest

import kloaders as kl
from tests.support.tar_files import png_bytes

SAMPLES = 14
PICTURES = np.random.default_rng(0).integers(0, 256, (SAMPLES, 6, 8, 3), np.uint8)


class Items(list):
    def __getitems__(self, numbers):
        return [self[k] for k in numbers]


class Label:
    names = ("even", "odd")


class Image:
    pass


class Builder:
    """As much of a builder as is used."""

    class Info:
        full_name = "numbers/1.0.0"
        features = types.MappingProxyType({"image": Image(), "label": Label(), "n": object()})

    info = Info()

    def as_data_source(self, split, decoders):
        assert list(decoders) in (["image"], [])
        self.split = split
        return Items(
            {"image": png_bytes(PICTURES[n]), "label": n % 2, "n": n} for n in range(SAMPLES)
        )


@pytest.fixture
def tfds(monkeypatch):
    """A package that has what is asked of TensorFlow Datasets."""
    module = types.ModuleType("tensorflow_datasets")
    module.features = types.SimpleNamespace(Image=Image)
    module.decode = types.SimpleNamespace(SkipDecoding=object)
    module.builder = lambda name, data_dir: Builder()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)


def test_each_sample_comes_once_shuffled_as_a_whole(tfds, keep):
    loader = keep(kl.from_tfds("numbers", y="n", batch_size=4, shuffle=True, seed=1))
    seen = []
    for x, y in loader:
        np.testing.assert_array_equal(x, PICTURES[y])
        seen += y.tolist()
    assert sorted(seen) == list(range(SAMPLES))
    assert seen != sorted(seen)


def test_classes_have_names_and_images_a_size(tfds, keep):
    builder = Builder()
    loader = keep(kl.from_tfds(builder, y="label", split="test[:50%]", size=(3, 3)))
    assert builder.split == "test[:50%]"
    x, y = loader[0]
    assert x.shape == (SAMPLES, 3, 3, 3)
    assert y.tolist() == [n % 2 for n in range(SAMPLES)]
    assert loader.class_names == ["even", "odd"]
    assert keep(kl.from_tfds(builder, "n")).class_names is None


def test_what_is_wrong_is_named(tfds, monkeypatch):
    with pytest.raises(ValueError, match="there is no feature 'm', there are image, label, n"):
        kl.from_tfds("numbers", "m")
    with pytest.raises(TypeError, match=r"dataset is a list, .* use from_source\(source\)"):
        kl.from_tfds([1])
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets array_record"):
        kl.from_tfds("numbers")


@pytest.mark.slow
def test_bit_equal_to_tensorflow_datasets(tmp_path, keep):
    tfds = pytest.importorskip("tensorflow_datasets", reason="TFDS is not installed")
    pytest.importorskip("array_record", reason="array_record is not installed")

    class Numbers(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["even", "odd"]),
                "n": tfds.features.Scalar(np.int64),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for n in range(SAMPLES):
                yield n, {"image": PICTURES[n], "label": n % 2, "n": n}

    builder = Numbers(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    theirs = builder.as_data_source(split="train")
    loader = keep(kl.from_tfds(builder, {"image": "image", "n": "n"}, "label", SAMPLES))
    x, y = loader[0]
    for k in range(SAMPLES):
        item = theirs[k]
        np.testing.assert_array_equal(x["image"][k], item["image"])
        np.testing.assert_array_equal(x["image"][k], PICTURES[x["n"][k]])
        assert (x["n"][k], y[k]) == (item["n"], item["label"])
    assert loader.class_names == ["even", "odd"]
