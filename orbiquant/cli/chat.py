"""`orbiquant chat`"""

import asyncio
from typing import Annotated

import typer

from orbiquant.cli.console import AsJson, open_runtime, show
from orbiquant.cli.kill import OWNER


def chat_command(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="What to say.")],
    conversation: Annotated[str, typer.Option(metavar="NAME", help="Which conversation goes on.")] = "console",
    as_json: AsJson = False,
) -> None:
    "Say something to the copilot."
    from orbiquant.copilot.loop import Copilot
    from orbiquant.core import SCOPES
    from orbiquant.domain import Caller

    me = Caller(OWNER, OWNER, "premium", frozenset(SCOPES))
    said = asyncio.run(Copilot(open_runtime()).answer(me, conversation, message))
    show(said, as_json, lambda: said.text or said.error)
