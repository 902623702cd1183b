"""The entry point: finds the command, runs it, and turns the user's mistakes into one line and exit code 2."""

import contextlib
import difflib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from fvgen import __version__
from fvgen.cli.registry import COMMANDS
from fvgen.errors import UserError
from fvgen.files import why_not_written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 the reader of a pipe went away, 2 the user can fix it, 130 interrupted. Anything
        unexpected is a bug and keeps its traceback.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(arguments)
        sys.stdout.flush()
    except UserError as error:
        return _fail(as_flags(str(error)), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at exit
        return 1
    except OSError as error:
        reason = why_not_written(error)
        if not reason:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{reason}; free some or write elsewhere", 2)
    return 0


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(""))
        return
    if arguments[0] in ("-V", "--version"):
        print(f"fvgen {__version__}")
        return
    words = next((n for n in (2, 1) if " ".join(arguments[:n]) in COMMANDS), 0)
    if words == 0:
        _no_such_command(arguments)
        return
    name = " ".join(arguments[:words])
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # a polite kill cleans up like Ctrl-C
    _parse(name, arguments[words:]).run()


def _parse(name: str, arguments: list[str]) -> Any:
    """The command's dataclass, filled from its arguments; mistakes become one line instead of tyro's box."""
    import tyro

    command = COMMANDS[name].load()
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(command, prog=f"fvgen {name}", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if stop.code:
            raise UserError(f"{_plain(complaint.getvalue())} (see fvgen {name} --help)") from None
        raise


def _plain(box: str) -> str:
    """The message of tyro's box (drawn with lines or, without UTF-8, with dashes) up to its next rule or gap."""
    lines = [line.strip("│ ") for line in box.strip().splitlines()]
    body = lines[1:] if box.lstrip().startswith("╭") else lines[2:]  # after the title
    end = next((i for i, line in enumerate(body) if not line.strip("─-╰╯")), len(body))
    return " ".join(body[:end]).replace("{None}|", "").rstrip(".:") or " ".join(lines)


def _no_such_command(arguments: list[str]) -> None:
    """Help for a group of commands (``fvgen train --help``), else an error that names the nearest command."""
    group = [name for name in COMMANDS if name.startswith(arguments[0] + " ")]
    if group and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        print(_overview(arguments[0] + " "))
        return
    typed = " ".join(arguments[:2]) if group else arguments[0]
    near = difflib.get_close_matches(typed, COMMANDS, 1)
    hint = f"did you mean '{near[0]}'?" if near else "see fvgen --help"
    raise UserError(f"there is no command '{typed}': {hint}")


def _overview(prefix: str) -> str:
    """The list of commands whose names start with ``prefix``, without loading any of them."""
    lines = [
        f"usage: fvgen {prefix}COMMAND [OPTIONS]",
        "",
        "A few photos of a place in, dense consistent novel views out, in four denoising steps.",
        "",
        "commands:",
        *(f"  {name:<20} {c.summary}" for name, c in COMMANDS.items() if name.startswith(prefix)),
        "",
        "fvgen COMMAND --help shows the options of a command, fvgen --version the version.",
    ]
    return "\n".join(lines)


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"fvgen: error: {line}", file=sys.stderr)
    return code


def as_flags(message: str) -> str:
    """A library's message as the command line says it: `model_size` in backticks becomes --model-size."""
    return re.sub(r"`([a-z][a-z0-9_.]*)`", lambda name: "--" + name[1].replace("_", "-"), message)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
