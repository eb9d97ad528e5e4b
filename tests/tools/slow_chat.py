"""A service whose model speaks at the pace that a message asks for: in a test's thread, or as a program."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from orbiquant.core import configure_logging
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings

WISH = {"symbol": "EURUSD", "action": "BUY", "size": 0.1, "stop_loss": 1.0, "take_profit": 3.0}
ORDER = "Buy 0.1 lots of EURUSD, stop 1.0, target 3.0"
_PACE = re.compile(r"count (\d+) words, one in (\d+) ms")


def count(words: int, every_ms: int) -> str:
    """Return the message that is answered with so many words at such a pace."""
    return f"count {words} words, one in {every_ms} ms"


async def speak(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Count as slowly as one is asked to; propose an order when one is asked for; repeat what came of it."""
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    said = next(str(part.content) for part in reversed(parts) if isinstance(part, UserPromptPart))
    if isinstance(parts[-1], ToolReturnPart):
        yield "It is settled."
    elif said.startswith(ORDER):
        yield {0: DeltaToolCall("execute_trade", json.dumps(WISH))}
    elif asked := _PACE.search(said):
        for number in range(1, int(asked[1]) + 1):
            await asyncio.sleep(int(asked[2]) / 1000)
            yield f"w{number} "
    else:
        yield f"I have read {len(messages)}."


def slow_runtime(folder: Path, database: str | None = None, **llm: int) -> Runtime:
    """Return a runtime over a folder, and over another database than the folder's where one is named."""
    places = {"store_uri": f"{folder}/store", "models_dir": folder / "models", "data_dir": folder}
    settings = load_settings(
        workspace=places | {"database_url": database or f"sqlite:///{folder}/o.db"},
        service={"requests_per_minute": 100_000},
        llm={"provider": "router"} | llm,
    )
    made = Runtime(settings)
    made.__dict__["chat_model"] = FunctionModel(stream_function=speak)
    return made


def main(folder: str, database: str) -> None:
    """Serve until a signal comes, and print where."""
    from orbiquant.app import app
    from orbiquant.service.serving import serve

    configure_logging("ERROR")
    with using(slow_runtime(Path(folder), database or None)):
        serve(app, "127.0.0.1", 0, announce=lambda place: print(place, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
