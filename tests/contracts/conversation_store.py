"""What every `ConversationStore` promises, so that a conversation goes on where it stopped, once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, ConversationStore
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import RequestUsage, RunUsage


def turn(number: int) -> list[ModelMessage]:
    """Return a question, a call, its answer and what was said."""
    call = ToolCallPart("get_price", {"symbol": "XAUUSD", "n": number}, f"c{number}")
    answer = ToolReturnPart("get_price", {"price": 2300.5 + number, "change": None}, f"c{number}")
    said = [ThinkingPart("hm"), TextPart(f"El oro está a {2300.5 + number}. ✓ 金")]
    return [
        ModelRequest(parts=[UserPromptPart(f"¿oro, {number}?\u0000")]),
        ModelResponse(parts=[call], usage=RequestUsage(input_tokens=10, output_tokens=3), model_name="m"),
        ModelRequest(parts=[answer]),
        ModelResponse(parts=said),
    ]


def talk(name: str, turns: int = 1) -> Conversation:
    """Return a conversation that nobody has saved."""
    return Conversation(conversation_id=name, messages=[each for number in range(turns) for each in turn(number)])


async def more(store: ConversationStore, name: str, messages: list[ModelMessage], **columns: Any) -> Conversation:
    """Add to a conversation and save it."""
    held = await store.load(name)
    assert held is not None
    held.messages = [*held.messages, *messages]
    for column, value in columns.items():
        setattr(held, column, value)
    await store.save(held)
    return held


@pytest.mark.anyio
class ConversationStoreContract:
    """Subclasses give a fixture `open_store`: each call opens one and the same store anew, as a restart does."""

    async def test_what_was_said_comes_back(self, open_store: Callable[[], ConversationStore]):
        kept = talk("a", 3)
        kept.usage = RunUsage(requests=3, input_tokens=30, tool_calls=3)
        entries = await open_store().save(kept)
        back = await open_store().load("a")
        assert back is not None and back.messages == kept.messages and back.usage == kept.usage
        assert len(entries) == 12 == len({entry.id for entry in entries})
        assert [entry.message for entry in await open_store().load_entries("a") or ()] == kept.messages

    async def test_a_store_without_it_has_none(self, open_store: Callable[[], ConversationStore]):
        assert await open_store().load("never") is None
        assert await open_store().list_conversations() == []
        await open_store().delete("never")

    async def test_a_save_appends_alone(self, open_store: Callable[[], ConversationStore]):
        kept, added = talk("a"), turn(1)
        first = await open_store().save(kept)
        await more(open_store(), "a", added)
        back = await open_store().load_entries("a")
        assert back is not None and [each.message for each in back] == [*kept.messages, *added]
        assert [each.parent_id for each in back] == [None, *(each.id for each in back[:-1])]
        assert [each.id for each in back[:4]] == [each.id for each in first], "what was there is not written again"

    async def test_the_last_of_it_can_be_asked_for(self, open_store: Callable[[], ConversationStore]):
        kept = talk("a", 5)
        await open_store().save(kept)
        for limit in (0, 1, 7, 20, 99):
            back = await open_store().load("a", limit=limit)
            assert back is not None and back.messages == (kept.messages[-limit:] if limit else [])

    async def test_a_window_is_saved_into_the_whole(self, open_store: Callable[[], ConversationStore]):
        await open_store().save(talk("a", 5))
        window = await open_store().load("a", limit=4)
        assert window is not None
        window.messages = [*window.messages, *turn(9)]
        await open_store().save(window)
        whole = await open_store().load("a")
        assert whole is not None and len(whole.messages) == 24 and whole.messages[-4:] == window.messages[-4:]

    async def test_what_waits_for_an_approval_comes_back(self, open_store: Callable[[], ConversationStore]):
        order = ToolCallPart("execute_trade", {"symbol": "XAUUSD", "size": 0.1}, "t1")
        waiting = DeferredToolRequests(approvals=[order], metadata={"t1": {"why": "asked"}})
        kept = talk("a")
        await open_store().save(kept)
        await more(open_store(), "a", [ModelResponse(parts=[order])], deferred_tool_requests=waiting)
        back = await open_store().load("a")
        assert back is not None and back.deferred_tool_requests == waiting
        await more(open_store(), "a", turn(2), deferred_tool_requests=None)
        after = await open_store().load("a")
        assert after is not None and after.deferred_tool_requests is None

    async def test_the_second_of_two_who_save_is_refused(self, open_store: Callable[[], ConversationStore]):
        await open_store().save(talk("a"))
        one, two = await open_store().load("a"), await open_store().load("a")
        assert one is not None and two is not None
        one.messages, two.messages = [*one.messages, *turn(1)], [*two.messages, *turn(2)]
        await open_store().save(one)
        with pytest.raises(ConversationConflict):
            await open_store().save(two)
        back = await open_store().load("a")
        assert back is not None and back.messages == one.messages, "and nothing of it is left behind"

    async def test_of_many_at_once_one_is_kept(self, open_store: Callable[[], ConversationStore]):
        await open_store().save(talk("a"))
        held = [await open_store().load("a") for _ in range(6)]
        for number, each in enumerate(held):
            assert each is not None
            each.messages = [*each.messages, *turn(number)]
        ended = await asyncio.gather(*(open_store().save(each) for each in held if each), return_exceptions=True)
        assert sorted(isinstance(each, ConversationConflict) for each in ended) == [False, *[True] * 5]
        back = await open_store().load("a")
        assert back is not None and len(back.messages) == 8

    async def test_a_new_one_of_a_name_that_is_taken_is_refused(self, open_store: Callable[[], ConversationStore]):
        await open_store().save(talk("a"))
        with pytest.raises(ConversationConflict):
            await open_store().save(talk("a", 2))

    async def test_going_back_keeps_what_is_left(self, open_store: Callable[[], ConversationStore]):
        kept = talk("a", 2)
        await open_store().save(kept)
        first = await open_store().load_entries("a")
        assert first is not None
        branched = await open_store().branch("a", at=4, expected_revision=kept.revision)
        branched.messages = [*branched.messages, *turn(7)]
        await open_store().save(branched)
        back = await open_store().load("a")
        assert back is not None and back.messages == branched.messages and len(back.messages) == 8
        again = await open_store().branch("a", from_entry=first[-1].id, expected_revision=branched.revision)
        assert again.messages == kept.messages

    async def test_a_fork_outlives_what_it_came_from(self, open_store: Callable[[], ConversationStore]):
        kept = talk("a", 2)
        await open_store().save(kept)
        fork = await open_store().fork("a", at=4, new_conversation_id="b")
        await open_store().delete("a")
        back = await open_store().load("b")
        assert back is not None and back.messages == fork.messages == kept.messages[:4]
        await open_store().delete("b")
        assert await open_store().list_conversations() == [] and await open_store().load("b") is None

    async def test_they_are_listed_newest_first(self, open_store: Callable[[], ConversationStore]):
        for name in ("a", "b", "c"):
            await open_store().save(talk(name))
        await more(open_store(), "a", turn(1))
        listed = await open_store().list_conversations()
        assert [each.conversation_id for each in listed] == ["a", "c", "b"]
        assert [each.conversation_id for each in await open_store().list_conversations(limit=1)] == ["a"]

    async def test_what_was_deleted_cannot_be_saved_over(self, open_store: Callable[[], ConversationStore]):
        await open_store().save(talk("a"))
        held = await open_store().load("a")
        await open_store().delete("a")
        assert held is not None
        held.messages = [*held.messages, *turn(1)]
        with pytest.raises(ConversationConflict):
            await open_store().save(held)
        assert await open_store().load("a") is None
