"""Known violations of the package's structure; see tests/test_rooms.py. Each set should become empty.

A test fails for violations that are missing here, and for entries that are fixed by now.
"""

#: (module, import): imports that run up the table of rooms.
UPWARD_IMPORTS: set[tuple[str, str]] = set()

#: Modules that import each other, directly or through others.
IN_CIRCLES: set[str] = set()

#: Modules over 500 lines.
LARGE_MODULES: set[str] = set()

#: Modules without a test file of their name.
WITHOUT_TEST_FILE: set[str] = set()

#: Test files over 800 lines.
LONG_TEST_FILES: set[str] = set()
