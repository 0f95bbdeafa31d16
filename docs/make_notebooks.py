"""Runs the notebooks and stores their outputs: python docs/make_notebooks.py [NOTEBOOK ...], by default all.

Outputs that depend on the machine or the run are removed: paths, execution times, warnings on stderr, terminal
colours. Needs the extra [notebooks].
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "notebooks"
LIMIT = 300_000  # bytes of a notebook
# Stored outputs must not contain folders of this machine.
PRIVATE = re.compile(r"/(?:tmp|root|home|work|Users|var|opt|mnt)/")

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n]*\r(?!\n)")
_TEMPORARY = re.compile(r"/(?:tmp|var)/(?:[\w.-]+/)*?tmp\w{8}(?=/|\b)")
_STEP = re.compile(r" - \d+m?s - \d+[muµ]?s/step(?= - )")
_HEX = re.compile(r" at 0x[0-9a-f]+")


def cleaned(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook with outputs that are the same on every machine, except measured numbers."""
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    number = 0
    for cell in notebook["cells"]:
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags"}
        if cell["cell_type"] != "code":
            continue
        number += 1
        cell["execution_count"] = number
        outputs: list[dict[str, Any]] = []
        for one in cell["outputs"]:
            if one["output_type"] != "stream":
                outputs.append(_output(one, number))
            elif one["name"] == "stdout":
                # A kernel sends a text in pieces, cut by the clock.
                if outputs and outputs[-1]["output_type"] == "stream":
                    one["text"] = [*outputs.pop()["text"], *one["text"]]
                outputs.append(_output(one, number))
        cell["outputs"] = outputs
    return notebook


def private(notebook: dict[str, Any]) -> list[str]:
    """What outputs have that is only true of one machine; none after `cleaned`."""
    text = json.dumps([cell.get("outputs", []) for cell in notebook["cells"]])
    text = re.sub(r'"image/png": (?:"[^"]*"|\[[^\]]*\])', "", text)  # its letters are no words
    return PRIVATE.findall(text) + re.findall(r"\\u001b|0x[0-9a-f]{8,}", text)


def _output(output: dict[str, Any], number: int) -> dict[str, Any]:
    if "text" in output:
        output["text"] = _text(output["text"])
    if "execution_count" in output:
        output["execution_count"] = number
    output.get("metadata", {}).clear()
    data = output.get("data", {})
    for kind in list(data):
        data[kind] = _small(data[kind]) if kind == "image/png" else _text(data[kind])
    return output


def _text(text: Any) -> Any:
    whole = "".join(text) if isinstance(text, list) else text
    if isinstance(whole, str):
        for pattern, instead in ((_ANSI, ""), (_TEMPORARY, "data"), (_HEX, ""), (_STEP, "")):
            whole = pattern.sub(instead, whole)
        return whole.splitlines(keepends=True)
    return whole


def _small(image: str) -> str:
    """Reduce a PNG to 128 colours: a quarter of the bytes, without a visible difference."""
    from PIL import Image

    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
    picture.quantize(128).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def run(path: Path) -> None:
    """Run a notebook in its folder and store it with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, record_timing=False, resources={"metadata": {"path": path.parent}}
    ).execute()
    store(path, cleaned(json.loads(nbformat.writes(notebook))))


def store(path: Path, notebook: dict[str, Any]) -> None:
    """Write a notebook in the same format as those in the repository."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    if found := private(notebook):
        raise ValueError(f"{path.name}: outputs have {found[:3]}: add them to cleaned().")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for one in sys.argv[1:] or sorted(FOLDER.glob("*.ipynb")):
        run(Path(one))
