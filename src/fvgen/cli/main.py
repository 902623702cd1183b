"""The entry point: finds the command, runs it, and turns the user's mistakes into one line and exit code 2."""

import contextlib
import dataclasses
import difflib
import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast, get_args, get_origin, get_type_hints

from fvgen import __version__
from fvgen.cli.registry import COMMANDS, HEADINGS
from fvgen.cli.unknown import unknown_option
from fvgen.errors import UserError
from fvgen.files import why_not_written, writing


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
        _end_at_once_from_now_on()
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
    command = _parse(name, arguments[words:])
    output = getattr(command, "output", None)
    told = contextlib.nullcontext() if output is None else writing(Path(output), f"--output {output}")
    with _lines(getattr(command, "quiet", False)), told, _said_once():
        command.run()


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Inside this block only the first of torchrun's processes prints what came out."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


class _Lines(logging.Handler):
    """What the library logs, as lines on stderr: above the bars where there are any."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; those that are more than news say so."""
        from tqdm import tqdm

        kind = "" if record.levelno < logging.WARNING else f"fvgen: {record.levelname.lower()}: "
        tqdm.write(kind + as_flags(record.getMessage()), file=sys.stderr)


@contextlib.contextmanager
def _lines(quiet: bool) -> Iterator[None]:
    """Inside this block the library is heard; ``quiet``: its errors alone, and no bars."""
    logger, handler = logging.getLogger("fvgen"), _Lines()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        if not quiet:
            yield
            return
        from fvgen.progress import bars

        with bars(disable=True):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _parse(name: str, arguments: list[str]) -> Any:
    """The command's dataclass, filled from its arguments; mistakes become one line instead of tyro's box."""
    import tyro

    command = COMMANDS[name].load()

    def parse(arguments: list[str]) -> Any:
        return tyro.cli(command, prog=f"fvgen {name}", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))

    if {"-h", "--help"} & set(arguments):
        _leave_out_no_defaults(command)
        return parse(arguments)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return parse(arguments)
    except SystemExit:
        page = io.StringIO()
        with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
            parse(["--help"])
        what = unknown_option(arguments, page.getvalue()) or _plain(complaint.getvalue())
        raise UserError(f"{what} (see fvgen {name} --help)") from None


def _leave_out_no_defaults(command: type[Any]) -> None:
    """Keep ``--help`` from telling defaults that are none (``None``, nothing in a list): its words say what happens."""
    from tyro.conf import arg

    hints = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        bare = get_args(hints[field.name])[0] if get_origin(hints[field.name]) is Annotated else hints[field.name]
        if dataclasses.is_dataclass(bare):
            _leave_out_no_defaults(cast(type[Any], bare))
        elif field.default in (None, ()) or (field.default is field.default_factory is dataclasses.MISSING):
            command.__annotations__[field.name] = Annotated[hints[field.name], arg(help_behavior_hint="")]


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
    groups = {
        heading: [name for name in COMMANDS if name.split()[0] in firsts and name.startswith(prefix)]
        for heading, firsts in (HEADINGS if not prefix else {"commands": (prefix.strip(),)}).items()
    }
    lines = [
        f"usage: fvgen {prefix}COMMAND [OPTIONS]",
        "",
        "A few photos of a place in, dense consistent novel views out, in four denoising steps.",
        "",
        *(line for heading, names in groups.items() for line in _listed(heading, names)),
        "fvgen COMMAND --help shows the options of a command, fvgen --version the version.",
    ]
    return "\n".join(lines)


def _listed(heading: str, names: list[str]) -> list[str]:
    return [f"{heading}:", *(f"  {name:<32} {COMMANDS[name].summary}" for name in names), ""]


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"fvgen: error: {line}", file=sys.stderr)
    return code


def as_flags(message: str) -> str:
    """A library's message as the command line says it: `model_size` in backticks becomes --model-size."""
    return re.sub(r"`([a-z][a-z0-9_.]*)`", lambda name: "--" + name[1].replace("_", "-"), message)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _end_at_once_from_now_on() -> None:
    """All is cleaned up: a signal that comes while Python itself ends shall end it, not make a traceback there."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
