"""Warming up beside serving: whoever asks meanwhile is answered."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orbiquant.core import get_logger
from orbiquant.runtime import Runtime

END_S = 0.5  # that a series in progress is waited for at the end


@contextmanager
def warming(
    runtime: Runtime,  # store, registry, settings
    tell: Callable[[str], None],  # what it is at, for people
) -> Iterator[threading.Thread]:
    "Warm up in the background for the length of a `with` block."
    ended = threading.Event()
    thread = threading.Thread(target=_warm, args=(runtime, tell, ended), name="warming", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        ended.set()
        thread.join(END_S)


def _warm(runtime: Runtime, tell: Callable[[str], None], ended: threading.Event) -> None:
    from orbiquant.desk.series import live_of
    from orbiquant.desk.warm import warm_lines

    began = time.perf_counter()
    try:
        if not live_of(runtime).series():
            return
        tell("Warming up in the background: first answers take longer until that is done")
        warmed = warm_lines(runtime, ended.is_set)
    except Exception as error:  # a store that cannot be read is told to whoever asks for it
        get_logger("service").warning("warming up failed", reason=str(error))
        return
    if not ended.is_set():
        tell(f"Warm after {time.perf_counter() - began:.1f} s: {', '.join(warmed) or 'nothing could be warmed'}")
