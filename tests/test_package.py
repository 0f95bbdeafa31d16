"""Promises about the package as a whole: names, import time, structure."""

import configparser
import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import kloaders

PACKAGE = Path(kloaders.__file__).parent
ROOT = Path(__file__).parents[1]
MODULES = sorted(name for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "kloaders."))


def run_python(code):
    """In an interpreter of its own, where nothing has been imported yet."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("heavy", ["tensorflow", "keras", "torch", "jax", "pandas", "matplotlib"])
def test_import_is_light(heavy):
    code = f"import sys, kloaders; print([m for m in sys.modules if m.split('.')[0] == {heavy!r}])"
    assert run_python(code) == "[]"


def test_dir_and_star_import_show_the_public_names():
    listed = run_python("import kloaders; print(set(kloaders.__all__) - set(dir(kloaders)))")
    assert listed == "set()"
    run_python("from kloaders import *; PathSequenceLoader, to_tf_dataset")


def test_version_is_that_of_the_metadata():
    assert kloaders.__version__ == importlib.metadata.version("kloaders")


def test_version_is_that_of_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert kloaders.__version__ == config["metadata"]["version"]


def test_type_information_is_installed():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("name", kloaders.__all__)
def test_public_name_is_there_and_documented(name):
    value = getattr(kloaders, name)
    if not name.startswith("__"):
        assert value.__doc__, f"kloaders.{name} has no docstring"
        assert value.__doc__.strip().splitlines()[0]


@pytest.mark.parametrize("name", kloaders.__all__)
def test_public_methods_are_documented(name):
    value = getattr(kloaders, name)
    for attribute, member in vars(value).items() if isinstance(value, type) else ():
        if not attribute.startswith("_") and (callable(member) or isinstance(member, property)):
            assert member.__doc__, f"kloaders.{name}.{attribute} has no docstring"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_loader"):
        kloaders.no_such_loader  # noqa: B018


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_module_says_what_it_is_for(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"


def test_console_script_points_at_a_function():
    (script,) = [
        entry
        for entry in importlib.metadata.distribution("kloaders").entry_points
        if entry.group == "console_scripts"
    ]
    assert script.name == "kloaders"
    assert callable(script.load())
