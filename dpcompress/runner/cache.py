"""Where this user's caches go. Valid on Python 3.8."""

from __future__ import annotations

import os
import sys


def cache_folder() -> str:
    """The folder of the file that DPCOMPRESS_STORE names, else one in the platform's
    cache."""
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
