"""From words to an exit status: finding the verb, help, errors of one line, notices, Ctrl-C."""

import contextlib
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from sciflow.cli.interrupt import Interrupted
from sciflow.cli.verbs import VERBS
from sciflow.errors import SciflowError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: 0, 2 for a user's error, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("SCIFLOW_DEBUG", "") not in ("", "0")
    if "--debug" in words:
        words.remove("--debug")
        debug = True
    try:
        with _notices():
            name, rest = _split(words)
            if name is None:
                return 0
            command = _parse(name, rest)
            command.run()
    except (KeyboardInterrupt, Interrupted) as stop:
        return _fail(str(stop) or "interrupted", 130)
    except _HelpShown:
        return 0
    except BrokenPipeError:  # as in `sciflow data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SciflowError, ValueError, OSError) as error:
        if debug:
            traceback.print_exc()
        return _fail(f"error: {error}", 2)
    return 0


class _HelpShown(Exception):
    """tyro printed the help of a verb."""


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """The verb and its arguments; None where help or version was asked for, and was printed."""
    if words[:1] == ["--version"]:
        from sciflow import __version__

        print(f"sciflow {__version__}")
        return None, []
    for n in (1, 2):
        if (name := " ".join(words[:n])) in VERBS:
            return name, words[n:]
    door = words[0] if words else ""
    known = [name for name in VERBS if name.split()[0] == door]
    if words and door not in ("-h", "--help") and not known:
        doors = ", ".join(dict.fromkeys(name.split()[0] for name in VERBS))
        raise ValueError(f"there is no command {door!r}; known are {doors}")
    if known and len(words) > 1 and words[1] not in ("-h", "--help"):
        verbs = ", ".join(name.split()[1] for name in known)
        raise ValueError(f"{door} has no verb {words[1]!r}; known are {verbs}")
    print("usage: sciflow <command> [OPTIONS]\n")
    for name in known or VERBS:
        print(f"  sciflow {name:<14} {VERBS[name].summary}")
    print("\nsciflow <command> --help shows the options of a command, with units and defaults;")
    print("--version shows the version, --debug the traceback of an error.")
    return None, []


def _parse(name: str, words: list[str]) -> Any:
    """The dataclass of a verb, filled from the command line."""
    verb, prog = VERBS[name].load(), f"sciflow {name}"
    if {"-h", "--help"} & set(words):
        with contextlib.suppress(SystemExit):
            tyro.cli(verb, prog=prog, args=words)
        raise _HelpShown
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _wide():
            return tyro.cli(verb, prog=prog, args=words)
    except SystemExit:
        raise ValueError(f"{_one_line(said.getvalue())} (see {prog} --help)") from None


def _one_line(box: str) -> str:
    """The message in the box that tyro draws, with lines or in ASCII."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    parts = [""]
    for line in text.splitlines()[1:]:  # the first line is the upper edge
        words = line.strip(" │|")
        if words.startswith("For full helptext"):
            break
        if words.strip("─╰╯-+"):
            parts[-1] += f" {words}"
        elif parts[-1]:  # a rule between two parts
            parts.append("")
    return "; ".join(part.strip() for part in parts if part)


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """Let no message be broken into lines."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


@contextlib.contextmanager
def _notices() -> Iterator[None]:
    """Show what the library logs on stderr, a line each."""
    logger, handler = logging.getLogger("sciflow"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("sciflow: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _fail(message: str, status: int) -> int:
    print(f"sciflow: {' '.join(message.split())}", file=sys.stderr)
    return status
