"""A language model that says what a test wants, in the kernel that the test types into."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings

WISH = {"symbol": "EURUSD", "action": "BUY", "size": 0.1, "stop_loss": 1.0, "take_profit": 3.0}
CODE = "Here:\n\n```python\nimport orbiquant as oq\n\nfast = [1.25, 17, 50]\nran = True\n```\n\nThat is all.\n"
SHELL = "Here:\n\n```python\n!rm -rf data\n```\n"
HEARD: list[str] = []  # what the model was told, a text a request
_PACE = re.compile(r"count (\d+) words, one in (\d+) ms")


async def speak(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Do what the last message says; propose an order whatever it says where it is called greedy."""
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    said = next(str(part.content) for part in reversed(parts) if isinstance(part, UserPromptPart))
    HEARD.append(said)
    if isinstance(parts[-1], ToolReturnPart):
        yield f"It says {json.dumps(parts[-1].content, default=str)}"
    elif asked := _PACE.search(said):
        for number in range(1, int(asked[1]) + 1):
            await asyncio.sleep(int(asked[2]) / 1000)
            yield f"w{number} . \n"
    elif "greedy" in said:
        yield {0: DeltaToolCall("execute_trade", json.dumps(WISH))}
    elif "write code" in said:
        yield CODE
    elif "a shell line" in said:
        yield SHELL
    elif "be hostile" in said:
        yield "<script>a(1)</script> <img src=x onerror=a(1)> ![p](http://x/y.png) [l](javascript:a(1)) \x1b[2J"
    else:
        yield "I have read it."


_entered: list[AbstractContextManager[Runtime]] = []


def use_scripted() -> None:
    """Let the copilot of this process speak as it is told."""
    made = Runtime(load_settings(llm={"provider": "openai", "model": "scripted", "base_url": "http://127.0.0.1:9/v1"}))
    made.__dict__["chat_model"] = FunctionModel(stream_function=speak)
    _entered.append(using(made))
    _entered[-1].__enter__()


def use_router() -> None:
    """Let the copilot of this process be the router again."""
    _entered.pop().__exit__(None, None, None)
