"""The command line: one function a command, one library call a function, and errors without a traceback."""

from __future__ import annotations

import os
import sys

import typer

from deepsky.cli import models, recipes, surveys
from deepsky.cli.options import app
from deepsky.errors import DeepskyError

__all__ = ["app", "main"]

USAGE = {"UsageError", "BadParameter", "NoSuchOption", "MissingParameter", "NoArgsIsHelpError", "BadArgumentUsage",
         "BadOptionUsage", "NoSuchCommand", "FileError"}  # fmt: skip

FLOW = [m.__name__ for m in (surveys, models, recipes)]  # each adds its commands; the help lists them in this order
app.registered_commands.sort(key=lambda c: FLOW.index(getattr(c.callback, "__module__", FLOW[0])))


def main() -> None:
    """Run the command line; exit codes: 0, 1 (user error), 2 (work remains), 130 (cancelled)."""
    # threads that spin while they wait for one that another program holds up cost seven times as much on a busy machine
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch is loaded; on a quiet machine it costs nothing
    code: object = 0
    try:
        code = app(standalone_mode=False, prog_name="deepsky")  # a command returns None: a number is typer's exit code
        sys.stdout.flush()
    except DeepskyError as error:
        _fail(f"deepsky: {error}", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("deepsky: cancelled", 130)
    except BrokenPipeError:  # whoever read our output has seen enough; what is left must not raise at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:  # no permission, no such disk
        _fail(f"deepsky: {error.filename or 'the system'}: {error.strerror or error}", 1)
    except Exception as error:
        if type(error).__name__ in USAGE:  # by name: typer may bring a click of its own
            error.show()  # type: ignore[attr-defined]
            raise SystemExit(1) from None
        raise
    if code == 130:
        _fail("deepsky: cancelled", 130)
    if isinstance(code, int) and code:
        raise SystemExit(code)


def _fail(words: str, code: int) -> None:
    typer.echo(words, err=True)
    raise SystemExit(code) from None
