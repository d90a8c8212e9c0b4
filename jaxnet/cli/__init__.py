"""The command line, `jaxnet`: what people touch.

    main(argv) -> exit code: 0 done, 1 checked and found wrong, 2 refused with one line on stderr, 130 interrupted,
    141 the reader went away

The options are in `options`, the work in a module per subcommand that is imported when it's asked for: help doesn't
wait for jax. JAXNET_TRACEBACK=1 shows the traceback behind an error line.
"""

import contextlib
import io
import os
import sys
from collections.abc import Sequence

from jaxnet import __version__
from jaxnet.cli.interrupts import CODE, heard


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` unless given) and return its exit code.

    >>> main(["--version"])
    jaxnet 0.1.0
    0
    """
    if argv is None and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # class names where the terminal has no such letters
    try:
        with heard() if argv is None else contextlib.nullcontext():
            code = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()  # here, where a reader that went away is noticed
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return CODE
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # Python flushes once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as end:  # from the parser, which has said why
        return end.code if isinstance(end.code, int) else 2
    except (ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("JAXNET_TRACEBACK", "0") not in ("", "0"):
            raise
        print(f"jaxnet: error: {_sentence(error)}", file=sys.stderr)
        return 2
    return code


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"jaxnet {__version__}")
        return 0
    from jaxnet.cli.options import Check, Compare, Demo, Info, Inspect, Predict, Report, Sweep, Train, parsed

    match parsed(words or ["--help"]):
        case Demo(out, seed):
            from jaxnet.cli.demo import demo

            demo(out, seed)
        case Train() as options:
            from jaxnet.cli.train import train

            train(options)
        case Predict() as options:
            from jaxnet.cli.predict import predict

            predict(options)
        case Sweep() as options:
            from jaxnet.cli.sweep import sweep

            sweep(options)
        case Report() as options:
            from jaxnet.cli.report import report

            report(options)
        case Compare() as options:
            from jaxnet.cli.compare import compare

            compare(options)
        case Check() as options:
            from jaxnet.cli.check import check

            return 0 if check(options) else 1
        case Inspect(path):
            from jaxnet.cli.inspect import inspect

            return 0 if inspect(path) else 1
        case Info():
            from jaxnet.cli.info import info

            info()
    return 0


def _sentence(error: Exception) -> str:
    """The error in one line; an error of the system as `file: reason`."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).splitlines()) or type(error).__name__
