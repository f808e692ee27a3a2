"""The command `zoo`, put together from its parts.

Results go to standard output: as JSON, or for people where that is a terminal. All else goes to standard
error.
Exit codes: 0 done, 1 standard output takes no more, 2 usage, 3 the objective or the workers failed, 130 and
143 stopped by SIGINT and SIGTERM with a checkpoint.

Other distributions add commands through the entry point group `gradfree.commands`: a name, and
"module:attribute" of a function or a `typer.Typer`.
"""

from __future__ import annotations

import errno
import functools
import importlib
import importlib.metadata
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

import zoo
from zoo.cli.common import NO_ROOM
from zoo.cli.output import clean
from zoo.core.errors import ZooWarning
from zoo.core.validation import hint

COMMANDS = {
    "Run": {
        "run": "zoo.cli.run:run",
        "minimize": "zoo.cli.minimize:minimize",
        "resume": "zoo.cli.resume:resume",
        "bench": "zoo.cli.bench:bench",
    },
    "Look": {
        "report": "zoo.cli.report:report",
        "compare": "zoo.cli.compare:compare",
        "serve": "zoo.cli.serve:serve",
        "export": "zoo.cli.export:export",
    },
    "Learn": {
        "list": "zoo.cli.list:list_",
    },
}
"""What there is, by the panel of the help page that it stands in; each is imported when it is asked for."""

_OTHERS = "From other packages"

_HELP = """Optimization without gradients: minimise any black box, stop it at any time, resume it.

The black box is a Python function, named as module:function, or a program. What is kept in a directory
survives a crash, a Ctrl-C and a power cut, and ends with the same bytes as if nothing had happened.

\b
# a first run, on a problem that comes along
zoo minimize zoo.problems:rosenbrock --x0 0x5 --seed 1
# the same, kept; stop it with Ctrl-C and go on with it
zoo minimize zoo.problems:rosenbrock --x0 0x5 --seed 1 --out runs/first
zoo resume runs/first
# which methods there are, and the options of one
zoo list
zoo list cma
"""


class Command(TyperCommand):
    """A command whose help page ends with examples."""

    examples = ""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        _print_examples(self.examples)


class Commands(TyperGroup):
    """The commands above and those of other distributions, each imported when it is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        _print_examples(help_of(_HELP)[1])

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all, those of other distributions last."""
        del ctx
        return [*_own(), *(name for name in _others() if name not in _own())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by name, None where there is none."""
        del ctx
        if cmd_name in _own():
            panel, target = _own()[cmd_name]
            module, _, attribute = target.partition(":")
            return command(cmd_name, getattr(importlib.import_module(module), attribute), panel)
        if cmd_name in _others():
            return command(cmd_name, _loaded(_others()[cmd_name]), _OTHERS)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first of `args` names, or say which one was probably meant."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"There is no command {args[0]!r}.{hint(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def command(name: str, found: Callable[..., Any] | typer.Typer, panel: str) -> Any:
    r"""Return a function, or an application, as a command of `zoo`.

    The paragraph of the docstring that begins with \b are examples, which the help page ends with.
    """
    examples = ""
    if not isinstance(found, typer.Typer):
        text, examples = help_of(inspect.getdoc(found) or "")
        single = _application(add_completion=False)
        single.command(name, cls=Command, help=text)(found)
        found = single
    made: Any = typer.main.get_command(found)
    made.name, made.rich_help_panel = name, panel
    if examples:
        made.examples = examples
    return made


def help_of(docstring: str) -> tuple[str, str]:
    """Return what a docstring says, unwrapped, and its examples, a line each."""
    said, _, examples = docstring.partition("\b\n")
    paragraphs = [" ".join(paragraph.split()) for paragraph in said.strip().split("\n\n")]
    return "\n\n".join(paragraphs), examples.strip()


def _print_examples(examples: str) -> None:
    if not examples:
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text("\n Examples", style="bold"))
    for line in examples.splitlines():
        console.print(Text(f" {line}", style="dim" if line.startswith("#") else "cyan"), soft_wrap=True)
    console.print()


def _application(**settings: Any) -> typer.Typer:
    return typer.Typer(
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


app = _application(name="zoo", cls=Commands, help=help_of(_HELP)[0])


@app.callback(invoke_without_command=True)
def _options_of_all(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(zoo.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line."""
    _open_what_is_closed()
    try:
        sys.path.insert(0, os.getcwd())  # so that module:function finds the user's own module
    except FileNotFoundError:
        typer.echo("zoo: the working directory is gone: change to one that is there", err=True)
        sys.exit(2)
    warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
    try:
        status = app(arguments, prog_name="zoo", standalone_mode=False)
    except KeyboardInterrupt:
        status = 130
    except OSError as error:
        if error.errno not in (*NO_ROOM, errno.EPIPE):
            raise
        if error.errno != errno.EPIPE:  # there, whoever read has seen enough, as `head` has
            typer.echo(f"zoo: cannot write: {error}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it would raise again
        status = 1
    except Exception as error:
        # Typer's own errors, which have had other homes in other versions.
        if not hasattr(error, "format_message"):
            raise
        typer.echo(f"zoo: {_explained(error)}", err=True)
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


def _open_what_is_closed() -> None:
    """Have standard output and error be there: where a shell closes them, the next file takes their place."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, descriptor)
            setattr(sys, name, open(descriptor, "w"))  # noqa: SIM115 - as long as this process


def _explained(error: Any) -> str:
    """Return what is wrong with the command line."""
    said = error.format_message()
    if name := getattr(error, "option_name", ""):
        near = getattr(error, "possibilities", None)
        said = f"There is no option {name}.{f' Did you mean {near[0]}?' if near else ''}"
    context = getattr(error, "ctx", None)
    known = context.command.params if context else []
    takes_options = known and all(one.param_type_name == "option" for one in known)
    if takes_options and said.startswith("Got unexpected extra argument"):
        said = f"{said.rstrip('.')}: only options can be given, such as {known[0].opts[0]}."
    return f"{said}\n`{context.command_path if context else 'zoo'} --help` says what can be given."


@functools.cache
def _own() -> dict[str, tuple[str, str]]:
    return {name: (panel, target) for panel, group in COMMANDS.items() for name, target in group.items()}


def _others() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group="gradfree.commands")}


def _loaded(entry: importlib.metadata.EntryPoint) -> Any:
    """Return a command of another distribution, or one that says why it cannot be had."""
    try:
        return entry.load()
    except Exception as error:
        lines = str(error).splitlines() or [""]
        reason = f"cannot be loaded from {entry.value}: {type(error).__name__}: {lines[0]}"

    broken = _application(add_completion=False)

    @broken.command(
        help=reason.replace("[", "\\["),
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def say() -> None:
        typer.echo(f"zoo: the command {entry.name!r} {reason}", err=True)
        raise typer.Exit(2)

    return broken


def _show_warning(
    usual: Callable[..., None],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, ZooWarning):
        typer.echo(f"zoo: warning: {clean(str(message))}", err=True)
    else:
        usual(message, category, filename, lineno, file, line)
