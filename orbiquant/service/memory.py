"""Memory that is free and not given back: C's allocator keeps it, scattered over the arenas of its threads."""

import asyncio
import ctypes

GIVE_BACK_S = 300.0  # between two times


def give_back() -> bool:
    "Give free memory back to the system, and say whether there was any; only glibc can."
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim and trim(0))


async def give_back_regularly(
    every_s: float = GIVE_BACK_S,  # between two times
) -> None:
    "Give free memory back for as long as the service runs."
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(give_back)
