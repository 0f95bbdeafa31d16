"""Remote data: object stores and other file systems by URL, prefetching and the download cache."""
