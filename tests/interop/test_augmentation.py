"""Pipelines of albumentations and layers of Keras as transforms: jointly on x and y, repeatable."""

import pickle
import threading

import keras
import numpy as np
import pytest

import kloaders as kl
from tests.support.recording import BACKEND

layers = keras.layers


@pytest.fixture(scope="module")
def A():
    return pytest.importorskip("albumentations", reason="the extra [test] has it")


def test_what_is_not_wrapped_is_answered_with_the_wrapper(A):
    """As transform= it was called with (x, y, rng), and failed with the first sample."""
    pipeline = A.Compose([A.HorizontalFlip(p=1)])
    for given in (pipeline, A.HorizontalFlip()):
        with pytest.raises(TypeError, match="pass transform=albumentations_transform"):
            kl.ArraySequenceLoader(pictures(), transform=given)
    flipped = kl.ArraySequenceLoader(pictures(), transform=kl.albumentations_transform(pipeline))
    assert np.array_equal(flipped[0], pictures()[:, :, ::-1])
    with pytest.raises(TypeError, match="pass batch_transform=keras_transform"):
        kl.ArraySequenceLoader(pictures(), transform=layers.RandomFlip())


def pictures(n=10, side=8):
    """Images whose pixels hold their position and sample number, so that moves are detected."""
    rows, columns = np.mgrid[:side, :side].astype(np.uint8)
    return np.stack([np.stack([rows, columns, np.full_like(rows, k)], -1) for k in range(n)])


def masks_of(x):
    """A mask computed from the image: this must still hold after both are transformed."""
    return (x[..., :1] > x[..., 1:2]).astype(np.uint8)


def batches(loader, epoch=1):
    return list(loader.epoch_batches(epoch))


def alike(one, two):
    """Whether batches are equal in every array."""
    flat = [
        (a, b)
        for p, q in zip(one, two, strict=True)
        for a, b in zip(_leaves(p), _leaves(q), strict=True)
    ]
    return all(np.array_equal(a, b) for a, b in flat)


def _leaves(value):
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in _leaves(value[key])]
    if isinstance(value, tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


# ---------------------------------------------------------------- albumentations


def geometry(A, **options):
    return A.Compose([A.HorizontalFlip(p=0.5), A.RandomCrop(5, 5), A.Transpose(p=0.5)], **options)


def test_pictures_and_masks_move_together(A):
    """The mask still follows from the picture, and most samples differ from what they were."""
    x = pictures()
    transform = kl.albumentations_transform(geometry(A), y="mask")
    loader = kl.ArraySequenceLoader(x, masks_of(x), 4, seed=3, transform=transform)
    moved = 0
    for got, mask in batches(loader):
        assert got.shape[1:] == (5, 5, 3)
        np.testing.assert_array_equal(mask, masks_of(got))
        moved += sum(not np.array_equal(p, x[p[0, 0, 2], :5, :5]) for p in got)
    assert moved >= 7


def test_a_pipeline_is_repeatable_in_threads_and_processes(A):
    """And differs from epoch to epoch, seed to seed and sample to sample."""
    x = pictures()
    pipeline = A.Compose([geometry(A), A.RandomBrightnessContrast(p=1), A.GaussNoise(p=1)], seed=9)
    transform = kl.albumentations_transform(pipeline)

    def make(**options):
        return kl.ArraySequenceLoader(x, np.arange(10), 4, transform=transform, **options)

    with (
        make(seed=3, workers=0) as one,
        make(seed=3, workers=3) as threads,
        make(seed=3, workers=1, processes=True) as processes,
    ):
        pipeline(image=x[0])  # using it elsewhere changes nothing
        assert alike(batches(one), batches(threads))
        assert alike(batches(one), batches(processes))
        assert not alike(batches(one, 1), batches(one, 2))
        assert not alike(batches(one), batches(make(seed=4)))
        again = pickle.loads(pickle.dumps(one))
        assert alike(batches(one), batches(again))


def test_boxes_that_leave_the_picture_make_room_for_padding(A):
    """Arrays keep their shape, rows of -1 are no boxes, and labels stay with their boxes."""
    x = np.zeros((6, 20, 20, 3), np.uint8)
    boxes = np.full((6, 3, 4), -1, np.float32)
    classes = np.full((6, 3), -1, np.int32)
    for k in range(6):
        boxes[k, 0], classes[k, 0] = [0, 0, 4, 4], 10 + k  # top left
        boxes[k, 1], classes[k, 1] = [14, 15, 19, 20], 20 + k  # bottom right
    y = {"boxes": boxes, "classes": classes, "id": np.arange(6)}
    params = A.BboxParams(format="pascal_voc", label_fields=["labels"])
    pipeline = A.Compose([A.Crop(0, 0, 10, 10), A.HorizontalFlip(p=1)], bbox_params=params)
    names = {"boxes": "bboxes", "classes": "labels"}
    transform = kl.albumentations_transform(pipeline, y=names)
    _, got = kl.ArraySequenceLoader(x, y, 6, transform=transform)[0]
    assert got["boxes"].shape == (6, 3, 4)
    assert got["boxes"].dtype == np.float32
    assert got["boxes"][:, 0].tolist() == [[6, 0, 10, 4]] * 6
    assert (got["boxes"][:, 1:] == -1).all()
    assert got["classes"].tolist() == [[10 + k, -1, -1] for k in range(6)]
    assert got["id"].tolist() == list(range(6))


def joints(side=20):
    """Row r of sample k is joint r at (2 + r, 10 + k); in row k there is none, in row 5 it is cut."""
    points = np.full((4, 6, 2), -1, np.float32)
    for k, row in np.ndindex(4, 6):
        if row != k:
            points[k, row] = [2 + row, 10 + k]
    points[:, 5] = side - 1, side - 1
    return points


@pytest.mark.parametrize("labelled", [False, True])
def test_keypoints_stay_in_their_rows(A, labelled):
    """A row is a joint: what is missing, or cut off, leaves a row of -1 and moves no other."""
    x, points = np.zeros((4, 20, 20, 3), np.uint8), joints()
    kinds = np.tile(np.arange(100, 106, dtype=np.int32), (4, 1))
    params = A.KeypointParams("xy", label_fields=["kinds"] if labelled else None)
    pipeline = A.Compose([A.Crop(0, 0, 15, 20), A.VerticalFlip(p=1)], keypoint_params=params)
    y = {"points": points, "kinds": kinds} if labelled else {"points": points}
    names = {"points": "keypoints", "kinds": "kinds"} if labelled else {"points": "keypoints"}
    transform = kl.albumentations_transform(pipeline, y=names)
    _, got = kl.ArraySequenceLoader(x, y, 4, transform=transform)[0]
    expected = points.copy()
    expected[..., 1] = np.where(points[..., 1] < 0, -1, 19 - points[..., 1])
    expected[:, 5] = -1  # at column 19, to the right of the crop
    np.testing.assert_array_equal(got["points"], expected)
    if labelled:
        np.testing.assert_array_equal(got["kinds"], np.where(expected[..., 0] < 0, -1, kinds))
    assert pipeline.processors["keypoints"].params.label_fields == (["kinds"] if labelled else None)


def test_keypoints_that_are_all_cut_off(A):
    """All keypoints are lost, in every row."""
    pipeline = A.Compose([A.Crop(0, 0, 2, 2)], keypoint_params=A.KeypointParams("xy"))
    transform = kl.albumentations_transform(pipeline, y="keypoints")
    x = np.zeros((4, 20, 20, 3), np.uint8)
    assert (kl.ArraySequenceLoader(x, joints(), 4, transform=transform)[0][1] == -1).all()


def test_a_pipeline_for_keypoints_without_any(A):
    """One pipeline serves data with keypoints and data without."""
    pipeline = A.Compose([A.Crop(0, 0, 2, 2)], keypoint_params=A.KeypointParams("xy"))
    transform = kl.albumentations_transform(pipeline)
    x = np.zeros((4, 20, 20, 3), np.uint8)
    assert kl.ArraySequenceLoader(x, None, 4, transform=transform)[0].shape == (4, 2, 2, 3)


def test_keypoints_of_several_targets_are_not_mixed_up(A):
    """Where the pipeline cannot carry row numbers, losing a row is an error."""
    params = A.KeypointParams("xy")
    more = {"others": "keypoints"}
    pipeline = A.Compose([A.VerticalFlip(p=1)], keypoint_params=params, additional_targets=more)
    names = {"points": "keypoints", "more": "others"}
    transform = kl.albumentations_transform(pipeline, y=names)
    x, points = np.zeros((4, 20, 20, 3), np.uint8), np.full((4, 6, 2), 3, np.float32)
    _, got = kl.ArraySequenceLoader(x, {"points": points, "more": points}, 4, transform=transform)[
        0
    ]
    assert (got["points"] == [3, 16]).all()
    loader = kl.ArraySequenceLoader(x, {"points": joints(), "more": points}, 4, transform=transform)
    with pytest.raises(kl.SampleError, match=r"kept 5 of 6 keypoints.*remove_invisible=False"):
        loader[0]


def test_one_entry_of_a_dict_is_the_picture(A):
    x = {"photo": pictures(), "row": np.arange(10.0)}
    transform = kl.albumentations_transform(geometry(A), x={"photo": "image"})
    got = kl.ArraySequenceLoader(x, batch_size=10, transform=transform)[0]
    assert got["photo"].shape == (10, 5, 5, 3)
    assert got["row"].tolist() == list(range(10))


def test_what_is_no_pipeline_is_refused(A):
    with pytest.raises(TypeError, match=r"expected a pipeline such as A.Compose"):
        kl.albumentations_transform(lambda image: image)
    transform = kl.albumentations_transform(geometry(A), y={"mask": "mask"})
    loader = kl.ArraySequenceLoader(pictures(), np.arange(10), 4, transform=transform)
    with pytest.raises(kl.SampleError, match="y has no entry 'mask': it is a ndarray"):
        loader[0]


# ---------------------------------------------------------------- Keras


@pytest.mark.parametrize("where", ["transform", "batch_transform"])
def test_a_layer_is_repeatable_in_any_number_of_threads(where):
    """And differs from epoch to epoch and between samples; the layer itself keeps its state."""
    x = pictures().astype(np.float32)
    pipeline = layers.Pipeline([layers.RandomFlip(), layers.RandomTranslation(0.5, 0.5)])
    adapted = {where: kl.keras_transform(pipeline)}

    def make(**options):
        return kl.ArraySequenceLoader(x, np.arange(10), 4, seed=3, **adapted, **options)

    with make(workers=0) as one, make(workers=3) as three:
        first = batches(one)
        pipeline(x[:4])  # using it elsewhere changes nothing
        state = [np.array(keras.ops.convert_to_numpy(v)) for v in pipeline.variables]
        assert alike(first, batches(three))
        assert not alike(first, batches(one, 2))
        after = [np.array(keras.ops.convert_to_numpy(v)) for v in pipeline.variables]
        assert len(state) == 2
        assert alike(state, after)
    flips = {tuple(np.sign(np.diff(p[..., :2], axis=0)).ravel().tolist()) for p in first[0][0]}
    assert len(flips) > 1


def test_calls_at_a_time_do_not_disturb_each_other():
    transform = kl.keras_transform(layers.RandomRotation(0.5))
    x = pictures().astype(np.float32)

    def call(k):
        return transform(x, None, np.random.default_rng(k))[0]

    want, got = [call(k) for k in range(8)], [None] * 8
    threads = [threading.Thread(target=lambda k=k: got.__setitem__(k, call(k))) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alike(want, got)


def test_labels_are_mixed_with_their_pictures():
    """MixUp: labels and images are mixed with the same shares of the same samples."""
    x = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None, None], (8, 4, 4, 3))
    transform = kl.keras_transform(layers.MixUp(), y="labels")
    loader = kl.ArraySequenceLoader(
        x, np.eye(8, dtype=np.float32), 8, seed=3, batch_transform=transform
    )
    mixed, labels = loader[0]
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(labels @ np.arange(8), mixed[:, 0, 0, 0], rtol=1e-4)
    assert ((labels > 0.01).sum(axis=1) == 2).any()
    assert loader.delivered_spec()[1].shape == (8,)


def test_masks_move_with_their_pictures_and_stay_classes():
    x = pictures()
    y = {"mask": masks_of(x), "id": np.arange(10)}
    flips = kl.keras_transform(layers.RandomFlip(), y={"mask": "segmentation_masks"})
    for options in ({"transform": flips}, {"batch_transform": flips}):
        got, labels = kl.ArraySequenceLoader(x, y, 10, seed=3, **options)[0]
        np.testing.assert_array_equal(labels["mask"], masks_of(got))
        assert labels["mask"].dtype == np.uint8
        assert labels["id"].tolist() == list(range(10))
        assert not np.array_equal(got, x)


def test_boxes_move_with_their_pictures():
    x = np.zeros((6, 10, 10, 3), np.float32)
    x[:, 2:4, 1:5] = 1
    box = np.tile(np.array([[1, 2, 5, 4]], np.float32), (6, 1, 1))
    y = {"boxes": box, "labels": np.ones((6, 1), np.float32)}
    flip = layers.RandomFlip("horizontal", bounding_box_format="xyxy")
    transform = kl.keras_transform(flip, y="bounding_boxes")
    got, found = kl.ArraySequenceLoader(x, y, 6, seed=3, batch_transform=transform)[0]
    for picture, (left, top, right, bottom) in zip(got, found["boxes"][:, 0], strict=True):
        rows, columns = np.nonzero(picture[..., 0])
        want = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose([left, top, right, bottom], want, atol=1e-4)
    assert len(np.unique(found["boxes"][:, 0, 0])) == 2


def test_a_model_trains_on_it():
    """On every backend, with a layer that changes labels and one that does not train."""
    augment = layers.Pipeline([layers.RandomFlip(), layers.MixUp()])
    transform = kl.keras_transform(augment, y="labels")
    y = np.eye(2, dtype=np.float32)[np.arange(10) % 2]
    loader = kl.ArraySequenceLoader(pictures(), y, 4, seed=3, batch_transform=transform)
    model = keras.Sequential([layers.Flatten(), layers.Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    history = model.fit(loader, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_worker_processes_get_no_layer():
    """For batches it runs in this process; for single samples it is refused."""

    def same(x, y, rng):  # sent by value: a worker need not import this file
        return x, y

    x, flip = pictures(), kl.keras_transform(layers.RandomFlip())
    options = {"processes": True, "workers": 1, "seed": 3}
    with kl.ArraySequenceLoader(
        x, batch_size=5, batch_transform=flip, transform=same, **options
    ) as loader:
        alone = kl.ArraySequenceLoader(x, batch_size=5, batch_transform=flip, seed=3)
        assert alike(batches(loader), batches(alone))
    with pytest.raises(TypeError, match="pass it as batch_transform="):
        kl.ArraySequenceLoader(x, batch_size=5, transform=flip, **options)


def test_a_layer_that_cannot_be_seeded_is_refused():
    if not hasattr(layers, "AugMix"):
        pytest.skip("this Keras has no AugMix")
    with pytest.raises(ValueError, match="AugMix draws from Python's global generator"):
        kl.keras_transform(keras.Sequential([layers.RandomFlip(), layers.AugMix()]))


@pytest.mark.parametrize("value", [lambda x: x, 3])
def test_what_is_no_layer_is_refused(value):
    with pytest.raises(TypeError, match=r"expected a layer of Keras 3"):
        kl.keras_transform(value)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="one backend will do")
def test_names_that_are_none_are_refused():
    with pytest.raises(TypeError, match="expected a name, or a dict"):
        kl.keras_transform(layers.MixUp(), y=["labels"])
