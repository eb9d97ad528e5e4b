"""A service gives back what it no longer uses."""

import asyncio
import platform

import psutil
import pytest

from orbiquant.service import memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back")
def test_freed_memory_is_given_back():
    held = [bytes(2_000) for _ in range(100_000)]
    held = held[::100]  # scattered, so that the allocator cannot shrink by itself
    before = psutil.Process().memory_info().rss
    assert memory.give_back() and len(held) == 1_000
    assert before - psutil.Process().memory_info().rss > 100e6


def test_it_is_done_again_and_again_until_the_service_ends(monkeypatch: pytest.MonkeyPatch):
    times = list[int]()
    monkeypatch.setattr(memory, "give_back", lambda: times.append(1))

    async def main() -> None:
        task = asyncio.create_task(memory.give_back_regularly(0.01))
        while len(times) < 2:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
