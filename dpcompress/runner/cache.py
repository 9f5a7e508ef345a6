"""The folder of this user's caches."""

from __future__ import annotations

import os
import sys


def cache_folder() -> str:
    """The folder that holds the file named by DPCOMPRESS_STORE; without that variable,
    dpcompress's own in the platform's cache folder."""
    named = os.environ.get("DPCOMPRESS_STORE")
    if named:
        return os.path.dirname(os.path.abspath(named))
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        cache = "~/Library/Caches"
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.join(os.path.expanduser(cache), "dpcompress")
