"""`orbiquant telegram`: the copilot in Telegram."""

import asyncio
from contextlib import suppress
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING

from orbiquant.cli.console import console, open_runtime
from orbiquant.cli.follow import until_interrupted

if TYPE_CHECKING:
    from orbiquant.copilot.telegram import TelegramBot


async def until_ended(
    bot: "TelegramBot",  # that answers
) -> None:
    "Let a bot answer until Ctrl-C or SIGTERM; what is being said is ended first."
    task = asyncio.current_task()
    assert task is not None
    for number in (SIGINT, SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await bot.run()


def telegram_command() -> None:
    "Let the copilot answer in Telegram until interrupted: the people of `[telegram]`, with the token of `[notices]`."
    from orbiquant.copilot.assembly import copilot_of
    from orbiquant.copilot.telegram import telegram_bot

    runtime = open_runtime()
    with until_interrupted(runtime, console(stderr=True)) as tell:
        asyncio.run(until_ended(telegram_bot(copilot_of(runtime), tell)))
