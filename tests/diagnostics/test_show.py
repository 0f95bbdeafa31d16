"""A batch that is shown is that of the plan."""

import os
import subprocess
import sys

import numpy as np
import pytest

import kloaders as kl
from kloaders.diagnostics.show import rows_of
from kloaders.plan.epoch import Order
from tests.support.figures import IMAGES, drawn, texts

pytest.importorskip("matplotlib")


def test_the_batch_of_the_plan_is_drawn_after_its_transform():
    """The samples that fit would get, in its order, with their labels' names."""
    x = np.arange(24, dtype="uint8")[:, None, None, None] * np.ones((1, 8, 8, 3), "uint8")

    def plus(x, y, rng):
        return x + 100, y

    loader = kl.ArraySequenceLoader(x, np.arange(24) % 2, 6, seed=3, transform=plus)
    loader.class_names = ["even", "odd"]
    for epoch, batch in ((0, 0), (0, 2), (1, 2)):
        numbers = loader.plan.indices(Order(epoch, 0), batch).tolist()
        figure = loader.show(batch, epoch=epoch)
        got = [round(float(picture.mean()) * 255) - 100 for picture in drawn(figure)]
        assert got == numbers
        captions = [t for t in texts(figure) if "row " in t]
        assert captions == [f"{'odd' if k % 2 else 'even'}\nrow {k}" for k in numbers]
    ordered = kl.ArraySequenceLoader(x, np.arange(24), 6, shuffle=False)
    assert [round(float(p.mean()) * 255) for p in drawn(ordered.show(1))] == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("kind", [kl.ArraySequenceLoader, kl.RamBatchSequenceLoader])
def test_the_batch_is_drawn_after_batch_transform(kind, tmp_path):
    """Images, labels and weights as `fit` gets them, from the same random numbers."""

    def mixup(x, y, rng):
        other, share = rng.permutation(len(x)), np.float32(rng.uniform(0.2, 0.8))
        labels = np.eye(12, dtype="float32")[y]
        mixed = share * x + (1 - share) * x[other]
        return mixed, share * labels + (1 - share) * labels[other], np.full(len(x), share)

    x = np.arange(12, dtype="float32")[:, None, None, None] * np.ones((1, 8, 8, 3), "float32")
    options = {"seed": 3, "shuffle": True, "batch_transform": mixup}
    if kind is kl.RamBatchSequenceLoader:
        for k in range(12):
            np.save(tmp_path / f"{k:02}.npy", x[k])
        data = [tmp_path / f"{k:02}.npy" for k in range(12)]
        options |= {"ram_batch_size": 12}
    else:
        data = x
    with kind(data, np.arange(12), 6, **options) as loader:
        got = list(loader.epoch_batches(1))
        for batch, parts in enumerate(got):
            rows = rows_of(loader, batch, epoch=1, samples=6)
            for part, drawn_part in zip(
                parts, zip(*[(r.x, r.y, r.weight) for r in rows], strict=True), strict=True
            ):
                np.testing.assert_array_equal(part, np.stack(drawn_part))
        assert drawn(loader.show(1, epoch=1))


def test_a_look_during_an_epoch_takes_no_batch_from_it():
    """In an epoch an index requests a batch of the model; show() must not take one."""
    loader = kl.ArraySequenceLoader(np.arange(12.0), batch_size=4, seed=1, shuffle=True)
    loader.on_epoch_begin()
    seen = []
    for k in range(3):
        loader.show(k)
        seen += loader[k].tolist()
    loader.on_epoch_end()
    assert sorted(seen) == list(range(12))


@pytest.mark.parametrize("on_error", ["raise", "skip", "replace"])
def test_a_sample_that_does_not_load_is_a_named_tile(tmp_path, on_error, caplog):
    """The others are drawn, with their own names; a replaced one is drawn as the model gets it."""
    cv2 = pytest.importorskip("cv2")
    paths = []
    for k in range(5):
        paths.append(str(tmp_path / f"{k}.png"))
        cv2.imwrite(paths[-1], np.full((8, 8, 3), 10 * k, "uint8"))
    for bad in (0, 2):
        (tmp_path / f"{bad}.png").write_bytes(b"no picture")
    options = {"shuffle": False, "size": (8, 8), "seed": 1, "quarantine": tmp_path / "bad.csv"}
    loader = kl.PathSequenceLoader(paths, batch_size=5, on_error=on_error, **options)
    figure = loader.show(samples=4)
    values = [round(float(p.mean()) * 255) for p in drawn(figure)]
    captions = [t for t in texts(figure) if t.endswith(".png")]
    if on_error == "replace":
        assert [int(t[-5]) * 10 for t in captions] == values
        assert (len(values), values[1], values[3]) == (4, 10, 30)
    else:
        assert values == [10, 30]
        names = [f"{tmp_path.name}/{k}.png" for k in range(4)]
        unbroken = [t.replace("failed to load\n", "! ").replace("\n", "") for t in captions]
        assert unbroken == [f"! {names[0]}", names[1], f"! {names[2]}", names[3]]
        assert sum("not an image that OpenCV" in t.replace("\n", " ") for t in texts(figure)) == 2
    # A look is no fit: nothing is taken down, written or warned of for one.
    assert (loader.errors, caplog.text) == ([], "")
    assert "png" not in (tmp_path / "bad.csv").read_text()


def test_a_batch_of_which_nothing_loads_is_drawn(tmp_path):
    class Own(kl.PathSequenceLoader):
        def load_sample(self, path):
            if path < "c":
                raise ValueError(f"{path} is broken")
            return np.zeros((4, 4, 3), "uint8")

    loader = Own(list("abcd"), batch_size=2, shuffle=False, check_paths=False)
    figure = loader.show()
    assert not drawn(figure)
    assert {"failed to load\na", "failed to load\nb"} <= set(texts(figure))


def test_an_unknown_form_of_boxes_is_refused():
    loader = kl.ArraySequenceLoader(IMAGES, batch_size=6)
    with pytest.raises(ValueError, match="box_format='corners' is unknown: choose xyxy, xywh"):
        loader.show(box_format="corners")
    with pytest.raises(ValueError, match="samples=0 is too small"):
        loader.show(samples=0)
    with pytest.raises(IndexError, match="batches are numbered from 0 to 0"):
        loader.show(1)


def test_looking_imports_nothing_before_it_is_used():
    """The base class has the methods; what draws and measures comes with the first call."""
    code = (
        "import sys, kloaders as kl\nkl.ArraySequenceLoader\n"
        "late = {'kloaders.diagnostics.show', 'kloaders.diagnostics.explain.run', 'kloaders.diagnostics.explain.html'}\n"
        "print(sorted(late & set(sys.modules)))"
    )
    # As in a worker process, which has the base class without Keras, and so is quick.
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KLOADERS_WORKER": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_rows_are_made_in_this_thread():
    """No process is started for a look, and no batch is made ahead."""
    loader = kl.ArraySequenceLoader(IMAGES, np.arange(6), 4, processes=True, workers=1, seed=1)
    rows = rows_of(loader, 0, 3, 2)
    wanted = loader.plan.indices(Order(3, 0), 0).tolist()[:2]
    assert [int(row.y) for row in rows] == wanted
    assert [row.name for row in rows] == [f"row {k}" for k in wanted]
    assert loader.runner.engine is None
