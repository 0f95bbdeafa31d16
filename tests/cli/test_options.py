"""Options that several commands have."""

import click
from click.testing import CliRunner

from kloaders.cli.options import (
    Conversion,
    ImageShape,
    TableColumns,
    conversion_options,
    image_options,
    table_options,
)


def called(command, *arguments):
    """What a command made of these arguments, as it was handed over."""
    found = {}

    @click.command()
    @command
    def collect(**values):
        found.update(values)

    done = CliRunner().invoke(collect, list(arguments))
    assert done.exit_code == 0, done.output
    return found


def test_columns_of_tables(tmp_path):
    """One value; an empty name is no labels."""
    assert called(table_options) == {"table": TableColumns()}
    arguments = ("--path-column", "a", "--label-column", "", "--folder", str(tmp_path))
    assert called(table_options, *arguments) == {"table": TableColumns("a", None, str(tmp_path))}


def test_shapes_of_images():
    assert called(image_options("as they are")) == {"images": ImageShape(None, 3)}
    got = called(image_options("as they are"), "--size", "4", "5", "--channels", "1")
    assert got == {"images": ImageShape((4, 5), 1)}


def test_conversions(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("path,error,first_seen\n")
    decorate = conversion_options("all", "load")
    assert called(decorate) == {"conversion": Conversion()}
    got = called(decorate, "--on-error", "skip", "--exclude", str(bad), "--overwrite")
    assert got == {"conversion": Conversion("skip", str(bad), True)}


def test_several_are_in_the_order_in_which_they_are_written():
    """In the help as in the code."""

    @click.command()
    @image_options("as they are")
    @table_options
    @click.option("--last")
    def command(**_):
        pass

    names = [option.name for option in command.params]
    assert names == ["size", "channels", "path_column", "label_column", "folder", "last"]
    assert "[default: as they are]" in CliRunner().invoke(command, ["--help"]).output
