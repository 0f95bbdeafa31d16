"""The page about texts, on PyTorch and JAX: Keras' layers of texts run in the loader there."""

import importlib.util
from pathlib import Path

import pytest

from tests.support.recording import BACKEND

PAGE = Path(__file__).parents[2] / "docs" / "tasks" / "texts.md"

sybil = pytest.importorskip("sybil", reason="the snippets need the extra [test]")
markdown = pytest.importorskip("sybil.parsers.markdown")


@pytest.mark.skipif(BACKEND == "tensorflow", reason="tests/test_docs.py runs it on TensorFlow")
@pytest.mark.skipif(
    not importlib.util.find_spec("tensorflow"),
    reason="Keras' layers of texts need TensorFlow on every backend",
)
@pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")
def test_its_programs_run(tmp_path, monkeypatch):
    """They assert that the model has learnt, from numbers that a TextVectorization layer made."""
    monkeypatch.chdir(tmp_path)
    document = sybil.Sybil([markdown.PythonCodeBlockParser()]).parse(PAGE)
    for example in document.examples():
        example.evaluate()
    assert document.namespace["model"].count_params() > 8000
