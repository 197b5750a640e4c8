"""An address in, its file system and the path on it out."""

import fsspec

from models.deadlines import with_deadlines


def open_address(url: object) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a local path or a URL, and the path on it.

    Not fsspec's `url_to_fs`, which takes `::` for a chain of file systems: in a name it is a name, and an address that a
    checkpoint gives can't make one file system open another. Its calls end by a deadline, as those of every store do.
    """
    address = str(url)
    protocol, _ = fsspec.core.split_protocol(address)
    kind = fsspec.get_filesystem_class(protocol or "file")
    system = fsspec.filesystem(protocol or "file", **kind._get_kwargs_from_urls(address))
    with_deadlines(system)
    return system, str(system._strip_protocol(address))
