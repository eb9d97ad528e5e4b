"""What a scripted model says in a kernel: as `slow_chat` does, and it draws a table when it is asked to."""

import json
import time
from collections.abc import AsyncIterator

from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls

from tests.tools.slow_chat import speak as speak_slowly

DRAW = "Draw my table, please."
spoken: list[float] = []  # when each piece was said, on the clock that never goes back


async def speak(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Do what was asked for, and remember when."""
    last = messages[-1].parts[-1]
    asked = isinstance(messages[-1], ModelRequest) and isinstance(last, UserPromptPart)
    if asked and str(last.content).startswith(DRAW):
        yield {0: DeltaToolCall("plot_frame", json.dumps({"name": "df", "column": "close"}))}
        return
    async for piece in speak_slowly(messages, info):
        spoken.append(time.perf_counter())
        yield piece
