"""The command line: `orbiquant …`."""

# Everything it needs is loaded in `main`: an interrupt while that goes on ends the process there and then, instead of
# somewhere in a library with a traceback. `_signal` is what `signal` is made of, and is there already.

import _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]


def main(
    words: "Sequence[str] | None" = None,  # what was typed after `orbiquant`; None: as it was
) -> "NoReturn":
    "Run the command line and exit."
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until `run` has read what was typed
    from orbiquant.cli.program import run_words

    run_words(words)
