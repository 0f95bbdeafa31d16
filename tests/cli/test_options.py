"""Options that several commands have."""

import click
from click.testing import CliRunner

import kloaders as kl
from kloaders.cli.options import (
    Conversion,
    ImageShape,
    RayOption,
    TableColumns,
    conversion_options,
    image_options,
    ray_option,
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


def test_a_cluster():
    """With an address or none; a path behind it is no address."""
    assert called(ray_option) == {"ray": None}
    assert called(ray_option, "--ray") == {"ray": RayOption()}
    for address in ("auto", "ray://host:10001", "host:6379"):
        assert called(ray_option, "--ray", address) == {"ray": RayOption(address)}
    done = CliRunner().invoke(click.command()(ray_option(lambda ray: None)), ["--ray", "photos/"])
    assert done.exit_code == 2
    assert "--ray is the last word of the command" in " ".join(
        done.output.replace("│", " ").split()
    )
    assert RayOption("auto").engine(3) == kl.Ray(cpus=3, address="auto")
    arguments = ["--finish", "--ray"]
    decorated = click.command()(conversion_options("a", "load")(lambda conversion: None))
    done = CliRunner().invoke(decorated, arguments)
    assert done.exit_code == 2
    assert "leave --ray out" in " ".join(done.output.split())
