"""What lies in a folder, and what of it cannot be looked at."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Listing:
    """What was found in a folder and below.

    Attributes:
        files: The files in the order of their names, also those that a link leads to.
        links: Links that are not followed, with the reason.
        closed: Folders that could not be listed, and links whose end could not be looked at, with the
            reason: nobody knows what lies there.
    """

    files: list[Path] = field(default_factory=list)
    links: dict[Path, str] = field(default_factory=dict)
    closed: dict[Path, str] = field(default_factory=dict)


def list_folder(folder: Path, *, without: Collection[Path] = ()) -> Listing:
    """List a folder and all below it but what is hidden.

    Links to files are followed. Links to folders are not: they can lead round in circles.

    Args:
        folder: The folder.
        without: Folders to leave out, by their resolved paths.
    """
    listing = Listing()
    ahead = [folder]
    while ahead:
        here = ahead.pop()
        if here.resolve() in without:
            continue
        try:
            with os.scandir(here) as entries:
                ahead += [here / entry.name for entry in entries if _is_folder(here, entry, listing)]
        except FileNotFoundError:
            continue  # removed since it was seen
        except OSError as error:
            listing.closed[here] = f"cannot be listed: {error.strerror or error}"
    listing.files.sort()
    return listing


def _is_folder(here: Path, entry: os.DirEntry[str], listing: Listing) -> bool:
    """Tell whether an entry is a folder to go into; if not, enter it where it belongs."""
    if entry.name.startswith("."):
        return False
    path = here / entry.name
    if not entry.is_symlink():
        if entry.is_file():
            listing.files.append(path)
        return entry.is_dir()
    try:
        if entry.is_file():
            listing.files.append(path)
        else:
            listing.links[path] = "is a link to a folder, not followed" if entry.is_dir() else "is a link to nothing"
    except OSError as error:
        if error.errno == errno.ELOOP:
            listing.links[path] = "is a link that leads to itself"
        else:
            listing.closed[path] = f"cannot be opened: {error.strerror or error}"
    return False
