"""Files for the drop-ins and for Keras' own loaders."""

import cv2
import pytest


@pytest.fixture(params=["Keras 2", "Keras 3"])
def old(request):
    """Keras' own class."""
    from tests.support.keras_images import OLD

    if request.param not in OLD:
        pytest.skip("tf_keras is not installed")
    return OLD[request.param]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Classes of several sizes, suffixes in both cases, folders inside a class, other files."""
    from tests.support.keras_images import photo

    root = tmp_path_factory.mktemp("photos")
    number = 0
    for name, count in (("cat", 7), ("Zebra", 4), ("ant", 9)):
        for k in range(count):
            suffix = (".png", ".jpg", ".BMP", ".jpeg")[k % 4]
            inside = ("", "more", "a/b")[k % 3]
            path = root / name / inside / f"{(k * 7) % 10}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = photo(number, 20 + 3 * k, 31 - k)
            assert cv2.imwrite(str(path), picture[..., ::-1])
            number += 1
        (root / name / "notes.txt").write_text("no picture")
    (root / "readme.md").write_text("no class")
    return root


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """scikit-learn's two, as PNG and as JPEG."""
    from sklearn.datasets import load_sample_images

    root = tmp_path_factory.mktemp("two")
    for suffix in ("png", "jpg"):
        (root / suffix / "a").mkdir(parents=True)
        for k, picture in enumerate(load_sample_images().images):
            assert cv2.imwrite(str(root / suffix / "a" / f"{k}.{suffix}"), picture[..., ::-1])
    return root
