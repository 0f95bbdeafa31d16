"""Every snippet in the README and in docs/, and every doctest in the package, runs."""

import ast
import contextlib
import doctest
import importlib
import importlib.util
import json
import pkgutil
import re
import unittest
from pathlib import Path

import numpy as np
import pytest

import kloaders
from tests.support import rooms
from tests.support.mds_files import write_mds

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(name for _, name, _ in pkgutil.walk_packages(kloaders.__path__, "kloaders."))
CLASSES = ["bird", "boat", "tree"]

sybil = pytest.importorskip("sybil", reason="the snippets need the extra [test]")
markdown = pytest.importorskip("sybil.parsers.markdown")

# `<!--- skip: next -->` above a block leaves it out: programs for two processes, which test_distributed runs.
READER = sybil.Sybil([markdown.PythonCodeBlockParser(), markdown.SkipParser()])


def write_photos(folder):
    """One folder a class, pictures of different sizes, the class in the colour."""
    cv2 = pytest.importorskip("cv2")
    noise = np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for n in range(20):
            picture = noise.integers(0, 80, (70 + n, 90, 3), "uint8")
            picture[..., k] += 150
            suffix = ".png" if n % 2 else ".jpg"
            assert cv2.imwrite(str(folder / name / f"{n:02}{suffix}"), picture)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """Create the files that the pages use without creating them, in the current folder."""
    keras = pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    paths = sorted(Path("photos").glob("*/*"))
    labels = [CLASSES.index(path.parent.name) for path in paths]
    model = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Resizing(32, 32),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(len(CLASSES), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    optional = ("torch", "zarr", "datasets", "pydicom", "nibabel", "soundfile")
    without = {f"no_{name}": importlib.util.find_spec(name) is None for name in optional}
    rows = [{"image": p.read_bytes(), "label": n} for p, n in zip(paths, labels, strict=True)]
    write_mds(tmp_path / "mds", {"image": "jpeg", "label": "int"}, rows)
    return {"paths": paths, "labels": labels, "model": model, **without}


def examples(page):
    return list(READER.parse(page).examples())


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=lambda p: p.name)
def test_snippets_run(page, names):
    """From top to bottom, one namespace a page."""
    document = READER.parse(page)
    if page.name == "index.md":  # the one line, out of context: it still has to run
        names["paths"] = [p for p in names["paths"] if p.stem == "00"]
        names["labels"] = [0, 1, 2]
    document.namespace.update(names)
    for example in document.examples():
        with contextlib.suppress(unittest.SkipTest):  # a missing package costs its own block only
            example.evaluate()


def script(name):
    """A script of docs/, as a module."""
    path = ROOT / "docs" / f"{name}.py"
    if not path.exists():
        pytest.skip("docs/ is not beside these tests")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_snippets():
    """Check that the parser finds examples at all."""
    assert len(examples(ROOT / "README.md")) >= 6
    assert sum(len(examples(page)) for page in PAGES) >= 30


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_doctests(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, optionflags=flags)
    assert not result.failed


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    if not page.exists():
        pytest.skip(f"{page.name} is not beside these tests")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target and (ROOT / ".git").exists():
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("command", ["demo", "test"])
def test_readme_has_the_command(command):
    """`.ci/run` finds the command by this mark and runs it unchanged: one line with all its setup."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- command: {command} -->\n```sh\n(.*)\n```", text)
    assert found
    assert "-m venv" in found[1]
    assert "pip install" in found[1]


def test_public_names_are_in_the_api_page():
    """Each in the page of its group, which docs/api.md lists."""
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    for name in kloaders.__all__:
        if not name.startswith("__"):
            assert re.search(rf":: {name}\b", text), f"no page in docs/api/ lists {name}"
    index = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^api/([\w-]+)$", index, re.MULTILINE)) == [p.stem for p in pages]


def test_a_broken_link_is_found(tmp_path):
    """A file that is not there, and an anchor; other hosts are not asked."""
    module = script("check_links")
    (tmp_path / "b.html").write_text('<p id="there"><a href="https://example.org/none">x</a>')
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there"><a href="b.html#gone"><img src="c.png"><a href="#me" id="me">'
    )
    assert module.broken(tmp_path) == [
        "a.html: b.html#gone: no such anchor",
        "a.html: c.png is not there",
    ]
    assert "has no pages" in module.broken(tmp_path / "b")[0]


def test_the_architecture_page_has_the_rooms():
    """The table in CONTRIBUTING.md equals the one in tests/test_rooms.py."""
    page = ROOT / "docs" / "architecture.md"
    if not page.exists():
        pytest.skip("docs/ is not beside these tests")
    text = (
        page.read_text(encoding="utf-8")
        .partition("## Packages and imports")[2]
        .partition("\n## ")[0]
    )
    table = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    assert tuple(tuple(re.findall(r"`(\w+)`", line[1])) for line in table) == rooms.ROOMS
    for above, line in zip(rooms.ROOMS[:-1], table[1:-1], strict=False):
        assert f"`{above[0]}`" in line[3], line[1]


def test_a_term_that_the_search_does_not_find_is_named(tmp_path):
    """In the text or in the title of one page; the index has stems of words."""
    pytest.importorskip("sphinx", reason="the stems need the extra [docs]")
    module = script("check_links")
    index = {"docnames": ["a", "b"], "terms": {"shuffl": 0, "s3": [0, 1]}}
    index["titleterms"] = {"buffer": [0], "split": [1]}
    text = f"Search.setIndex({json.dumps(index)})"
    (tmp_path / "searchindex.js").write_text(text, encoding="utf-8")
    assert module.not_found(tmp_path, "Shuffle buffers, shuffle split, S3, FAQ") == [
        "shuffle split: the search finds no page",
        "FAQ: the search finds no page",
    ]


def prints(source):
    """Whether a cell of a notebook prints, or ends with what a notebook displays."""
    *_, last = body = ast.parse(source).body
    calls = [
        ast.unparse(node.func)
        for statement in body
        if not isinstance(statement, ast.FunctionDef)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
    ]
    displays = isinstance(last, ast.Expr) and (
        isinstance(last.value, ast.Name) or ast.unparse(last).endswith(".show()")
    )
    return displays or "print" in calls


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_are_stored_with_outputs(path):
    """Each cell has its output, without anything that depends on the machine."""
    module = script("make_notebooks")
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert module.private(notebook) == []
    assert len(text) <= module.LIMIT
    assert module.cleaned(json.loads(text)) == notebook, "run docs/make_notebooks.py"
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        source = "".join(cell["source"])
        assert cell["outputs"] or not prints(source), source
        assert all(one["output_type"] != "error" for one in cell["outputs"])


def test_each_notebook_is_a_page():
    """docs/notebooks is where Sphinx finds them."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"\nnotebooks/{path.stem}\n" in index
        page = (
            ROOT / "docs" / "notebooks" / path.name
        )  # a link, which a source distribution has as a copy
        assert page.read_bytes() == path.read_bytes()


def test_outputs_are_stored_without_what_tells_of_the_machine():
    """Folders, colours of the terminal, addresses, times, and what a library says on stderr."""
    module = script("make_notebooks")
    stream = {"output_type": "stream", "name": "stdout"}
    said = ["\x1b[1m/tmp/tmpab12cd_9/data/x.png\x1b[0m\n", "0%\r100%\n", "<f at 0x7f00aa11bb22>\n"]
    outputs = [stream | {"text": said}, {"output_type": "stream", "name": "stderr", "text": ["?"]}]
    metadata = {"execution": {"iopub.execute_input": "2026-11-30T02:50:00Z"}}
    cell = {"cell_type": "code", "metadata": metadata, "outputs": outputs, "execution_count": 7}
    assert module.private({"cells": [cell]}) != []
    made = module.cleaned({"metadata": {"host": "me"}, "cells": [cell]})
    assert made["cells"] == [
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [stream | {"text": ["data/data/x.png\n", "100%\n", "<f>\n"]}],
            "execution_count": 1,
        }
    ]
    assert module.private(made) == []


PROSE = [p for p in PAGES if p.name not in ("promises.md", "contract-table.md")]


def prose(page):
    """The text of a page without programs and code words, and without tables that programs print."""
    text = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    if page.name == "performance.md":
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"<!--.*?-->|</?[a-z][^>]*>|`[^`\n]+`", "", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    "term",
    [
        *(
            "time series",
            "audio",
            "DICOM",
            "NIfTI",
            "Hugging Face",
            "WebDataset",
            "S3",
            "contrastive",
        ),
        *("mixed precision", "test set", "three-way split", "class weight", "shuffle buffer"),
        *("prefetch", "FAQ", "bottleneck", "throughput", "reproducible", "GIL", "corrupt"),
    ],
)
def test_terms_that_people_search_for_are_found(term):
    pages = [p for p in PROSE if "docs" in p.parts]
    if not pages:
        pytest.skip("docs/ is not beside these tests")
    assert any(re.search(rf"\b{term}", prose(p), re.IGNORECASE) for p in pages)


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_pages_are_in_the_terms_of_the_field(page):
    """Per and not "a" in rates, images, the GIL; no sentence that begins with "Of"."""
    text = prose(page)
    unwanted = r"\ba training\b(?! \w)|Python's lock|\bpictures?\b|\b(?:once|bytes|times) an? (?:epoch|sample|second)\b"
    assert re.findall(unwanted, text) == []
    assert re.findall(r"(?:\A|[.:!?]\s+|\n\n)Of \w+", text) == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_the_index_opens_with_the_table_and_has_four_parts():
    page = ROOT / "docs" / "index.md"
    if not page.exists():
        pytest.skip("docs/ is not beside these tests")
    text = page.read_text(encoding="utf-8")
    assert text.index("include} ../README.md") < text.index("```python")
    assert re.findall(r":caption: (.*)", text) == ["Learn", "How to", "Understand", "Reference"]
    start, end = (re.search(rf':{key}: "(.*)"', text)[1] for key in ("start-after", "end-before"))
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition(start)[2].partition(end)[0]
    assert table.count("\n| ") > 10


def test_the_tf_data_page_has_every_verb():
    page = ROOT / "docs" / "from-tf-data.md"
    if not page.exists():
        pytest.skip("docs/ is not beside these tests")
    text = page.read_text(encoding="utf-8")
    verbs = (
        *(
            "map",
            "shuffle",
            "batch",
            "prefetch",
            "cache",
            "interleave",
            "zip",
            "concatenate",
            "take",
        ),
        *("skip", "filter", "repeat", "from_generator", "from_tensor_slices", "TFRecordDataset"),
        *("element_spec", "padded_batch", "shard", "window", "cardinality", "unbatch"),
    )
    for verb in verbs:
        assert re.search(rf"`[^`]*\b{verb}\b", text), verb


def test_the_page_of_commands_is_current():
    """The page equals the output of `python docs/make_command_page.py`."""
    module = script("make_command_page")
    assert module.PAGE.read_text(encoding="utf-8") == module.page()
    for name, command in module.cli.commands.items():
        assert f"### kloaders {name}\n" in module.page()
        for option in command.params:
            if getattr(option, "hidden", False) is False and option.param_type_name == "option":
                assert option.opts[0] in module.page()


def test_the_pictures_are_made_by_their_script(tmp_path):
    """All that are stored, light and dark, small; the page of explain() is the current one."""
    pytest.importorskip("matplotlib")
    module = script("make_pictures")
    made = {path.name: path for path in module.make(tmp_path)}
    stored = {path.name: path for path in (ROOT / "docs" / "pictures").iterdir()}
    assert sorted(made) == sorted(stored)
    assert max(path.stat().st_size for path in stored.values()) <= module.LIMIT
    assert made["explain.html"].read_text("utf-8") == stored["explain.html"].read_text("utf-8")
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in stored if f"pictures/{name}" not in text] == []
