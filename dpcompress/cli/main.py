"""The command ``dpcompress``: registers the verbs and turns errors into one sentence."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from dpcompress.cli.bench import bench
from dpcompress.cli.compress import compress
from dpcompress.cli.doctor import doctor
from dpcompress.cli.expand import expand
from dpcompress.cli.export import export
from dpcompress.cli.finetune import finetune
from dpcompress.cli.inspect import inspect
from dpcompress.cli.merge import merge
from dpcompress.cli.options import add_verb
from dpcompress.cli.output import console, emit
from dpcompress.cli.profile import profile
from dpcompress.cli.runner import runner
from dpcompress.cli.score import score
from dpcompress.cli.shrink import shrink
from dpcompress.cli.solve import solve
from dpcompress.cli.store import store
from dpcompress.errors import (
    CannotWrite,
    DpcompressError,
    DpcompressWarning,
)
from dpcompress.version import __version__

app = typer.Typer(
    help="Makes trained convolutional networks faster by making them shallower.",
    epilog="Start with: dpcompress compress -o run",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

WHOLE, STEP, CHECK = "The whole job", "One step at a time", "Look and check"

VERBS: dict[Callable[..., None], str] = {
    compress: WHOLE,
    shrink: WHOLE,
    expand: WHOLE,
    inspect: STEP,
    profile: STEP,
    score: STEP,
    solve: STEP,
    finetune: STEP,
    merge: STEP,
    export: STEP,
    bench: CHECK,
    doctor: CHECK,
    store: CHECK,
    runner: CHECK,
}
for _verb, _panel in VERBS.items():
    add_verb(app, _verb, _panel)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True)
    ] = False,
) -> None: ...


def main() -> NoReturn:
    """Run the command line and exit: see the exit codes in `dpcompress.errors`."""
    warnings.showwarning = _warn  # type: ignore[assignment]
    try:
        try:
            app(prog_name="dpcompress")
        finally:
            sys.stdout.flush()  # here, where a full disk can still be told
    except DpcompressError as error:
        sys.exit(report(error))
    except BrokenPipeError:
        _forget_output()  # its reader went away, as `head` does: nothing is wrong
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            raise
        place = error.filename or "The output"
        _forget_output()
        sys.exit(
            report(
                CannotWrite(
                    f"{place} cannot be written: {error.strerror}.",
                    "Free some space or choose a folder that you may write to.",
                )
            )
        )
    sys.exit(0)


_show_warning = warnings.showwarning


def _warn(message: Warning | str, category: type[Warning], *place: Any) -> None:
    if not issubclass(category, DpcompressWarning):
        return _show_warning(message, category, *place)
    text = f"warning: {message}"
    console.print(text, style="yellow", markup=False, soft_wrap=True)


def _forget_output() -> None:
    """Send buffered output to the null device, since Python flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: DpcompressError) -> int:
    """Say what went wrong and what to do about it; returns the exit code."""
    if "--json" in sys.argv:
        facts = {
            name: value
            for name, value in vars(error).items()
            if isinstance(value, str | int | float)
        }
        kind = type(error).__name__
        emit({"error": {"kind": kind, **facts, "exit_code": error.exit_code}})
    else:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
    return error.exit_code
