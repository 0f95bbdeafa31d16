"""Common code of the replacements: names, subsets, and Keras' settings."""

import keras
import pytest

from kloaders.migrate import ImageDataGenerator, image_dataset_from_directory
from kloaders.migrate.shared import (
    channels_of,
    check_data_format,
    filter_named,
    keras_setting,
    report_found,
    rows_of_part,
)


@pytest.fixture
def channels_first():
    """Keras' own setting, for the time of a test."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def test_channels_last_is_what_there_is():
    check_data_format("channels_last")
    check_data_format(None)
    with pytest.raises(ValueError, match=r"data_format='channels_first'.*Permute\(\(3, 1, 2\)\)"):
        check_data_format("channels_first")


def test_kerass_setting_is_heeded(channels_first, tmp_path):
    """Images would come in another layout than the model was built for."""
    assert keras_setting("image_data_format") == "channels_first"
    for call in (ImageDataGenerator, lambda: image_dataset_from_directory(tmp_path)):
        with pytest.raises(ValueError, match=r"image_data_format.. is 'channels_first'"):
            call()
    assert ImageDataGenerator(data_format="channels_last").data_format == "channels_last"


def test_names_of_keras_options():
    assert [channels_of(mode) for mode in ("grayscale", "rgb", "rgba")] == [1, 3, 4]
    with pytest.raises(ValueError, match="color_mode='bgr' is not known"):
        channels_of("bgr")
    assert filter_named("box", {"box": "pillow-box"}) == "pillow-box"
    with pytest.raises(ValueError, match="'area' is not supported: choose one of box"):
        filter_named("area", {"box": "pillow-box"})


@pytest.mark.parametrize(("subset", "rows"), [(None, 10), ("validation", 2), ("training", 8)])
def test_parts_are_cut_as_keras_cuts(subset, rows):
    """The first ones validate."""
    got = list(range(10))[rows_of_part(subset, 10, 0.29)]
    assert len(got) == rows
    if subset:
        assert (0 in got) is (subset == "validation")


def test_a_part_needs_a_share():
    with pytest.raises(ValueError, match=r"validation_split=0\.2"):
        rows_of_part("training", 10, 0)
    with pytest.raises(ValueError, match="subset='test' is not known"):
        rows_of_part("test", 10, 0.2)


@pytest.mark.parametrize("verbose", [True, False])
def test_counts_are_logged_where_wanted(caplog, verbose):
    with caplog.at_level("INFO", "kloaders"):
        report_found(verbose, 1234, 2, "photos")
    assert ("photos: found 1,234 files belonging to 2 classes." in caplog.text) is verbose
