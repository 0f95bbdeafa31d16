"""Messages truncate and escape what they quote, for any file name and any content."""

import ast
import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli.main import cli
from kloaders.core.messages import visible

HERE = Path(kl.__file__).parent
# Names of files and folders, which are quoted whole: cut, they name nothing.
PATHS = ("path", "folder", "root", "file", "os.path.join(path, '*.tfrecord')")

# Clears the screen, sets the window's title, writes from right to left, and ends the line.
ESCAPES = ("\x1b[2J", "\x1b]0;owned\x07", "\u202egnp", "\r", "\n", "\x9b31m")


def messages_in(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            yield node
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name.endswith("Error") or name in ("warn", "inform"):
                yield node


def quoted_in(module):
    """For each message: its first words, and the quoted expressions as source code."""
    for node in messages_in(ast.parse(module.read_text(encoding="utf-8"))):
        for part in ast.walk(node):
            if isinstance(part, ast.FormattedValue) and part.format_spec is None:
                yield ast.unparse(node)[:60], ast.unparse(part.value), part.conversion


@pytest.mark.parametrize(
    "module", sorted(HERE.rglob("*.py")), ids=lambda p: p.relative_to(HERE).as_posix()
)
def test_values_are_cut_and_names_of_files_are_made_visible(module):
    """`{value!r:.80}` and `{visible(path)}`; a DecodeError and what is logged do the latter themselves."""
    for words, value, conversion in quoted_in(module):
        if conversion == ord("r"):
            assert value in PATHS, f"write {{{value}!r:.80}} in {words}"
        elif "DecodeError" not in words and not words.startswith(("warn(", "inform(")):
            assert value not in PATHS, f"write {{visible({value})}} in {words}"


@pytest.fixture
def hostile(tmp_path):
    """A folder of two classes; one class and a broken file in it have malicious names."""
    for name in (f"cat{ESCAPES[0]}{ESCAPES[2]}$x$", "dog"):
        (tmp_path / name).mkdir()
        for k in range(4):
            image = np.full((8, 8, 3), 60 * k, np.uint8)
            (tmp_path / name / f"{k}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    bad = tmp_path / "dog" / f"evil{''.join(ESCAPES)}.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n\x1b[2Jnothing")
    return tmp_path


def check(text, *words):
    """No control sequence takes effect, and the names are readable."""
    for evil in ("\x1b", "\x07", "\x9b", "\u202e", "\r"):
        assert evil not in text
    for word in words:
        assert word in text


def test_errors_and_logs(hostile, caplog):
    caplog.set_level(logging.INFO, "kloaders")
    (hostile / "empty\x1b[2J").mkdir()
    train, _ = kl.from_directory(hostile, size=(8, 8), validation=None, on_error="skip", seed=1)
    assert sum(len(x) for x, _ in train.epoch_batches(0)) == 8
    (error,) = train.errors
    check(str(error), "evil\\x1b[2J\\x1b]0;owned\\x07\\u202egnp\\r\\n\\x9b31m.png")
    assert "\n" not in str(error)
    said = "\n".join(record.getMessage() for record in caplog.records)
    check(said, "evil\\x1b[2J", "class 'empty\\x1b[2J' has no files in")
    train.close()
    loader, _ = kl.from_directory(hostile, size=(8, 8), validation=None, shuffle=False)
    with pytest.raises(kl.SampleError) as caught:
        list(loader.epoch_batches(0))
    check(str(caught.value), "evil\\x1b[2J")
    loader.close()


@pytest.mark.parametrize("setup", ["pass", "logging.basicConfig(stream=sys.stderr)"])
def test_a_skipped_sample_is_heard_of(setup):
    """Whether logging was set up or not, with no level chosen."""
    code = f"""
import logging, sys
{setup}
import numpy as np, kloaders as kl
class Own(kl.SequenceLoader):
    def load_sample(self, index):
        if index == 2:
            raise ValueError("no such thing")
        return np.float32(index)
loader = Own(4, on_error="skip")
print(sum(len(x) for x in loader.epoch_batches(0)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "3\n"
    assert "ValueError: no such thing. It is skipped" in done.stderr


def test_errors_before_the_first_sample(hostile):
    for fails in (
        lambda: kl.from_directory(hostile, label_mode="binary", class_names=["dog\x1b"]),
        lambda: kl.from_directory(hostile / "no\x1b[2J"),
        lambda: kl.from_directory(hostile / "dog" / f"evil{''.join(ESCAPES)}.png"),
        lambda: kl.PathSequenceLoader([hostile / "no\x1b[2J.png"]),
        lambda: kl.PathSequenceLoader([hostile / "no\x1b[2J.xyz"], check_paths=False),
        lambda: kl.PackSequenceLoader(hostile / "no\x1b[2J"),
        lambda: kl.TFRecordSequenceLoader(str(hostile / "no\x1b[2J")),
        lambda: kl.verify(hostile / "no\x1b[2J"),
        lambda: kl.CsvSequenceLoader(str(hostile / "no\x1b[2J")),
    ):
        with pytest.raises((ValueError, OSError)) as caught:
            fails()
        check(str(caught.value), "\\x1b")


def test_commands(hostile):
    found = CliRunner().invoke(cli, ["verify", str(hostile), "--workers", "0"])
    assert found.exit_code == 1
    check(found.output, "evil\\x1b[2J")
    found = CliRunner().invoke(cli, ["verify", str(hostile / "no\x1b[2J")])
    check(found.output, "no\\x1b[2J")
    found = CliRunner().invoke(cli, ["explain", str(hostile / "dog"), "--seconds", "0.1"])
    check(found.output, "evil\\x1b[2J")


def test_what_shows_a_loader(hostile):
    loader, _ = kl.from_directory(hostile, size=(8, 8), validation=None, on_error="skip", seed=1)
    list(loader.epoch_batches(0))
    check(loader.summary(), "cat\\x1b[2J", "evil\\x1b[2J")
    check(loader._repr_html_(), "cat\\x1b[2J", "evil\\x1b[2J")
    pytest.importorskip("matplotlib")
    figure = loader.show()
    drawn = [text.get_text() for axes in figure.axes for text in axes.texts]
    for text in drawn:
        check(text)
    assert any("cat\\x1b[2J\\u202egnp$x$" in text.replace("\n", "") for text in drawn)
    figure.canvas.draw()  # two dollar signs are no formula
    loader.close()


def test_progress_bars(hostile, capsys):
    loader = kl.ArraySequenceLoader(np.arange(8.0), batch_size=4)
    kl.write_pack(loader, hostile / "pack\x1b[2J", progress=True)
    check(capsys.readouterr().err.replace("\r", ""))


def test_a_value_of_many_bytes_is_cut():
    """A table with the bytes of images in a column of texts."""
    pandas = pytest.importorskip("pandas")
    big = b"\xff\xd8" * 50_000
    frame = pandas.DataFrame({"file": [big, big], "kind": ["a", "b"]})
    for fails in (
        lambda: kl.from_dataframe(frame, "file", "kind"),
        lambda: kl.PathSequenceLoader([big]),
        lambda: kl.ArraySequenceLoader(np.arange(3), shuffle=big),
        lambda: kl.ArraySequenceLoader(np.arange(3), transform=big),
        lambda: kl.ArraySequenceLoader(np.arange(3), dtype=str(big)),
        lambda: kl.ArraySequenceLoader(np.arange(3), on_error=big),
        lambda: kl.ArraySequenceLoader(np.arange(3), cache=big),
        lambda: kl.PathSequenceLoader(["a.png"], size=big),
        lambda: kl.folds(kl.ArraySequenceLoader(np.arange(3)), big),
    ):
        with pytest.raises((ValueError, TypeError, OSError)) as caught:
            fails()
        assert len(str(caught.value)) < 1500


def test_what_is_printable_stays():
    for text in ("", "a/b c.png", "Übung/猫/🐈.jpg", "C:\\new\\table"):
        assert visible(text) == text
    assert visible("a\nb\tc", lines=True) == "a\nb\tc"
    assert visible("a\nb\tc") == "a\\nb\\tc"
    assert visible("\udcff.png") == "\\udcff.png"
    assert visible(3) == "3"
