"""Compares the docs' table of scenarios with the results of a run: python compare_tables.py DOCS RUN.

Both must list the same scenarios, no scenario of the run may have failed, and cells that both tables
have must be equal.
"""

import sys


def cells_of(path):
    """{(scenario, column): text of the cell}."""
    with open(path, encoding="utf-8") as file:
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in file]
    header, _, *rows = rows
    return {
        (name, column): cell
        for name, *cells in rows
        for column, cell in zip(header[1:], cells, strict=True)
    }


def complaints(docs, run):
    """Yield one line per difference."""
    documented, seen = ({name for name, _ in table} for table in (docs, run))
    for name in sorted(seen - documented):
        yield f"{name!r} ran, and the docs do not list it: CONTRIBUTING.md says how to update the table"
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
    print(f"compared {len(docs.keys() & run.keys())} cells of the docs with this run")
    sys.exit("\n".join(complaints(docs, run)) or 0)


if __name__ == "__main__":
    main()
