"""What all commands do alike: their numbers are finite, and what ends them early is one message.

A full disk, a folder without permission or too little memory is the machine's and not a defect of ours, wherever in the
work it is met.
"""

from __future__ import annotations

import errno
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand

from helix_kit.errors import HelixKitError, InputError

REASONS = frozenset({
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR, errno.EMFILE, errno.ENAMETOOLONG,
    errno.ENFILE, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
})  # fmt: skip
"""Errors of the operating system that a user can mend: about files, folders and disks."""


KEYWORD_ENDINGS = ("", "s", "_s", "_per_s")
"""What the keyword of an option may have more than the option: its unit, or that there are several."""


class Command(TyperCommand):
    """A command of the program."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError("expected a finite number", field=parameter.opts[0], value=value)
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise self._named_as_typed(error) from error
        except KeyboardInterrupt:
            typer.echo("helix-kit: stopped", err=True)
            raise typer.Exit(130) from None
        except MemoryError as error:
            raise HelixKitError("the memory of this machine does not suffice") from error
        except OSError as error:
            if error.errno not in REASONS:
                raise
            raise HelixKitError(f"{error.filename}: {error.strerror}" if error.filename else error.strerror) from error

    def _named_as_typed(self, error: InputError) -> InputError:
        """The error with the option that the user typed in place of the keyword that it became, such as rate_per_s."""
        if type(error) is not InputError:
            return error
        options = [option for parameter in self.params for option in parameter.opts if option[0] == "-"]
        # Names without an ending come last and win over names with one.
        known = {
            f"{option.lstrip('-').replace('-', '_')}{ending}": option
            for ending in reversed(KEYWORD_ENDINGS) for option in options
        }  # fmt: skip
        if error.where in known:
            return InputError(error.expected, where=known[error.where], field=error.field, value=error.value)
        if error.where in (None, self.name) and error.field in known:
            return InputError(error.expected, field=known[error.field], value=error.value)
        return error


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that the best result so far is kept. A second Ctrl-C ends the program."""
    stop = threading.Event()

    def first(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, first) if threading.current_thread() is threading.main_thread() else None
    try:
        yield stop
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
