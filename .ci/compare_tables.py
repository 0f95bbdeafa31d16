"""Whether the table of scenarios in the docs is what this run saw: python compare_tables.py DOCS RUN.

Both must have the same scenarios, nothing in the run may have failed, and cells that both have must
say the same.
"""

import sys


def cells_of(path):
    """{(scenario, column): what its cell says}."""
    with open(path, encoding="utf-8") as file:
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in file]
    header, _, *rows = rows
    return {
        (name, column): cell
        for name, *cells in rows
        for column, cell in zip(header[1:], cells, strict=True)
    }


def complaints(docs, run):
    """What is not as it should be, one line each."""
    documented, seen = ({name for name, _ in table} for table in (docs, run))
    for name in sorted(seen - documented):
        yield f"{name!r} ran, and the docs do not list it: CONTRIBUTING.md says how to renew the table"
    for name in sorted(documented - seen):
        yield f"the docs list {name!r}, which did not run"
    for (name, column), cell in sorted(run.items()):
        if cell in ("failed", "not run"):
            yield f"{name!r} on {column}: {cell}"
        elif docs.get((name, column), cell) != cell:
            yield f"{name!r} on {column}: the docs say {docs[name, column]}, this run {cell}"


def main():
    docs, run = map(cells_of, sys.argv[1:])
    with open(sys.argv[2], encoding="utf-8") as file:
        print(file.read())
    print(f"{len(docs.keys() & run.keys())} cells of the docs were run here")
    sys.exit("\n".join(complaints(docs, run)) or 0)


if __name__ == "__main__":
    main()
