"""Remote folders of files: one listing, and its class folders and files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kloaders.formats.files import suffix_of
from kloaders.places.access import list_below
from kloaders.places.urls import join
from kloaders.sources.folders import chosen_classes
from kloaders.sources.remote_files import ListedPaths

__all__ = ["RemoteFolder"]


class RemoteFolder:
    """Everything below a folder's URL; like `class_folders` and `files_below` for local folders."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._found = {
            name: entry
            for name, entry in list_below(self.url)
            if not any(part.startswith(".") for part in name.split("/"))
        }
        self._below: dict[str, list[str]] = {}
        for name in self._found:
            top, slash, rest = name.partition("/")
            if slash:
                self._below.setdefault(top, []).append(rest)

    def classes(self, class_names: list[str] | None) -> list[str]:
        """The subfolders, sorted by name; or those in `class_names`, in that order.

        Raises:
            FileNotFoundError: there is nothing below the URL.
            ValueError: there are no class folders.
        """
        if not self._found:
            raise FileNotFoundError(
                f"there is nothing below {self.url}: check the names of the bucket and the folder."
            )
        return chosen_classes(self.url, sorted(self._below), len(self._found), class_names)

    def files(
        self,
        name: str,
        wanted: frozenset[str] | None,
        left_out: Callable[[str], None] | None = None,
    ) -> Iterator[str]:
        """The URLs of a class's files: folders sorted by path, files in each by name."""
        found = [rest.rpartition("/") for rest in self._below.get(name, ())]
        for folder, slash, file in sorted(found):
            below = f"{name}/{folder}{slash}{file}"
            if wanted is None or suffix_of(file) in wanted:
                yield join(self.url, below)
            elif left_out is not None:
                left_out(join(self.url, below))

    def listed(self, urls: list[str]) -> ListedPaths:
        """These URLs, with their metadata from the listing."""
        entries = {join(self.url, name): entry for name, entry in self._found.items()}
        return ListedPaths.of([(url, entries[url]) for url in urls])
