"""Write docs/cli.md from the command dataclasses: ``python scripts/write_cli_docs.py`` (``--check`` only compares)."""

import argparse
import ast
import dataclasses
import inspect
import sys
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

import tyro

from fvgen.cli.registry import COMMANDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]
_SUPPRESSED = typing.get_args(tyro.conf.Suppress[int])[1]
HEAD = """# The command line

This page is written by `scripts/write_cli_docs.py` from the commands themselves; `fvgen COMMAND --help` says the same.

A mistake in the input ends in one line on stderr and exit code 2, Ctrl-C in exit code 130. In both cases nothing is
left in the output folder, save by `fvgen evaluate`, which keeps what is finished and goes on from there, and by
`fvgen generate`, which keeps cameras and depth. `fvgen view` is ended by Ctrl-C, with exit code 0.
"""


def render() -> str:
    """The whole page."""
    rows = [f"| [`fvgen {name}`](#{_anchor(name)}) | {command.summary} |" for name, command in COMMANDS.items()]
    table = "\n".join(["| command | |", "|---|---|", *rows])
    sections = [_section(name, command.load()) for name, command in COMMANDS.items()]
    return "\n".join([HEAD, table, "", *sections])


def _anchor(name: str) -> str:
    return "fvgen-" + name.replace(" ", "-")


def _section(name: str, command: type[Any]) -> str:
    hints = typing.get_type_hints(command, include_extras=True)
    fields = [f for f in _shown(command, hints) if not dataclasses.is_dataclass(_bare(hints[f.name]))]
    places = [_metavar(hints[f.name], f.name) for f in fields if _is_positional(hints[f.name])]
    required = [
        f"{_flag(f.name)} {_metavar(hints[f.name], f.name)}"
        for f in fields
        if not _is_positional(hints[f.name]) and not _has_default(f)
    ]
    usage = " ".join(["fvgen", name, *places, *required, "[OPTIONS]"])
    rows = _rows(command, None)
    table = ["| option | default | |", "|---|---|---|", *rows]
    return "\n".join([f"## fvgen {name}", "", "```", usage, "```", "", inspect.getdoc(command) or "", "", *table, ""])


def _shown(owner: type[Any], hints: dict[str, Any]) -> "list[dataclasses.Field[Any]]":
    """The fields that ``--help`` shows."""
    return [f for f in dataclasses.fields(owner) if _SUPPRESSED not in _extras(hints[f.name])]


def field_docstrings(command: type[Any]) -> dict[str, str]:
    """The docstring under each field of a dataclass, its own fields and inherited ones, on one line each.

    Raises:
        SystemExit: where a field has none.
    """
    texts: dict[str, str] = {}
    for owner in reversed([c for c in command.__mro__ if dataclasses.is_dataclass(c)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for item, following in zip(body.body, body.body[1:]):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                text = following.value if isinstance(following, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    texts[item.target.id] = " ".join(text.value.split())
    missing = [f.name for f in dataclasses.fields(command) if f.name not in texts]
    if missing:
        raise SystemExit(f"{command.__module__}.{command.__name__}: no docstring under {', '.join(missing)}")
    return texts


def _rows(owner: type[Any], given: Any, prefix: str = "") -> list[str]:
    """One row per option; the fields of dataclasses within come in their place, with what is given for them."""
    helps, hints, rows = field_docstrings(owner), typing.get_type_hints(owner, include_extras=True), []
    for f in _shown(owner, hints):
        if dataclasses.is_dataclass(_bare(hints[f.name])):
            inner = getattr(given, f.name) if given is not None else _value(f)
            named = next((m.name for m in getattr(hints[f.name], "__metadata__", ()) if hasattr(m, "name")), f.name)
            rows += _rows(_bare(hints[f.name]), inner, f"{prefix}{named}." if named else prefix)
        else:
            shown = f if given is None else dataclasses.field(default=getattr(given, f.name))
            shown.name = f.name
            rows.append(_row(shown, hints[f.name], helps[f.name], prefix))
    return rows


def _value(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _row(field: "dataclasses.Field[Any]", hint: Any, text: str, prefix: str = "") -> str:
    metavar = _metavar(hint, field.name)
    if _is_positional(hint):
        option = f"`{metavar}`"
    else:
        on = _bare(hint) is bool and _has_default(field) and _value(field) is True
        names = [*_aliases(hint), _flag(f"{prefix}no-{field.name}" if on else prefix + field.name)]
        option = ", ".join(f"`{n}`" for n in names) + ("" if _bare(hint) is bool else f" `{metavar}`")
    return "| " + " | ".join(part.replace("|", "\\|") for part in (option, _default(field, hint), text)) + " |"


def _default(field: "dataclasses.Field[Any]", hint: Any) -> str:
    if not _has_default(field):
        return "required"
    value = _value(field)
    if value is None or _bare(hint) is bool:
        return ""
    if isinstance(value, tuple | list):
        return f"`{' '.join(map(str, value))}`" if value else ""
    return f"`{value}`"


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _extras(hint: Any) -> list[Any]:
    """Everything annotated on a type, however deep ``Annotated`` is nested."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *extras = typing.get_args(hint)
        return [*extras, *_extras(inner)]
    return []


def _bare(hint: Any) -> Any:
    return _bare(typing.get_args(hint)[0]) if typing.get_origin(hint) is typing.Annotated else hint


def _is_positional(hint: Any) -> bool:
    return _POSITIONAL in _extras(hint)


def _aliases(hint: Any) -> tuple[str, ...]:
    return next((tuple(e.aliases) for e in _extras(hint) if getattr(e, "aliases", None)), ())


def _metavar(hint: Any, name: str) -> str:
    given = next((e.metavar for e in _extras(hint) if getattr(e, "metavar", None)), None)
    return given or _type_name(_bare(hint))


def _type_name(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin in (typing.Union, types.UnionType):
        return "|".join(_type_name(a) for a in arguments if a is not type(None))
    if origin in (tuple, list):
        return _type_name(arguments[0]) + "..."
    return {str: "TEXT", int: "INT", float: "FLOAT", Path: "PATH"}.get(hint, getattr(hint, "__name__", str(hint)))


def main() -> int:
    """Write the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is not up to date")
    check = parser.parse_args().check
    page = render()
    if check:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current != page:
            print(f"{PAGE} is not up to date: run scripts/write_cli_docs.py", file=sys.stderr)
        return int(current != page)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
