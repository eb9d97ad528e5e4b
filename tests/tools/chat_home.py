"""A workspace in which a chat can be tried: markets that are open now, and whoever else is asked, on this machine."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
from sqlalchemy import select

from orbiquant.copilot.conversations import SqlConversationStore
from orbiquant.copilot.tickets import tickets
from orbiquant.core import SystemClock
from orbiquant.desk.agents import step_agents
from orbiquant.desk.study import store_sample
from orbiquant.domain import LOCAL_USER, Bars, SeriesId
from orbiquant.jobs.handlers import JobContext
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings
from orbiquant.trading import tables
from orbiquant.workspace import make_workspace
from tests.tools.fake_vendors import KEY, FakeNews
from tests.tools.model_server import PlayedModel

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
COINS = ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "AVAX", "LINK", "LTC", "TRX", "DOT")
TABLE = "\n\n| tide | height |\n|---|---|\n| ebb | **low** |\n\n`sea`"
PRICE = 100.0  # of all of them: their market goes nowhere


def calm_bars(count: int, last: pd.Timestamp) -> Bars:
    """Return hourly bars that go nowhere: no stop is reached, so that an order is what a person asked for."""
    index = pd.date_range(end=last, periods=count, freq="h", name="time")
    close = PRICE + 0.05 * np.sin(np.arange(count))
    open_ = np.r_[PRICE, close[:-1]]
    high, low = np.maximum(open_, close) + 0.01, np.minimum(open_, close) - 0.01
    return pd.DataFrame({"open": open_, "high": high, "low": low, "close": close, "volume": 100.0}, index)


class ChatHome:
    """A workspace, what it is asked with, and what its database says afterwards."""

    def __init__(self, folder: Path, model: PlayedModel, news: FakeNews) -> None:
        self.folder, self.model, self.news = folder, model, news
        self.coins = iter(COINS)
        make_workspace(folder)
        told = {"HOME": folder, "LLM_PROVIDER": "openai", "LLM_BASE_URL": model.address, "LLM_MODEL": "played"}
        told |= {"LLM_FALLBACK": "", "PROVIDERS_NEWSAPI_URL": news.url, "PROVIDERS_NEWSAPI_API_KEY": KEY}
        told |= {"PROVIDERS_FEAR_GREED_URL": "", "PROVIDERS_MENTIONS_URL": ""}
        told |= {"ORION_MAX_POSITIONS": 100, "ORION_COOL_DOWN_BARS": 0, "ORION_MIN_REWARD_TO_RISK": 1}
        places = {"DATA_DIR": "data", "STORE_URI": "data/store", "MODELS_DIR": "data/models"}
        told |= {f"WORKSPACE_{name}": folder / place for name, place in places.items()}
        told |= {"WORKSPACE_DATABASE_URL": f"sqlite:///{folder / 'data' / 'orbiquant.db'}"}
        self.environment = {f"ORBIQUANT_{name}": str(value) for name, value in told.items()}
        with patch.dict(os.environ, self.environment):
            self.runtime = Runtime(load_settings())
        last = pd.Timestamp(SystemClock().now()).floor("h") - timedelta(hours=1)
        with using(self.runtime):
            store_sample()
        self.bars = calm_bars(60, last)
        for coin in COINS:
            self.runtime.store.upsert(SeriesId.parse(f"{coin}USDT", "1h"), self.bars.iloc[:-1])

    def order(self, side: str = "Buy") -> tuple[str, str]:
        """Return the symbol and the words of an order that nobody has asked for yet."""
        symbol = f"{next(self.coins)}USDT"
        stop, target = (98, 104) if side == "Buy" else (102, 96)
        return symbol, f"{side} 0.01 lots of {symbol}, stop {stop}, target {target}"

    def next_bar(self, symbol: str) -> None:
        """Let the newest bar of a coin arrive, and the engine's job look at it: what was asked for is filled."""
        self.runtime.store.upsert(SeriesId.parse(symbol, "1h"), self.bars)
        clock = SystemClock()
        with using(self.runtime):
            step_agents(JobContext("1", None, clock.now(), clock, shared=self.runtime))

    def keep_models(self) -> None:
        """Bring a trained model of EURUSD along."""
        shutil.copytree(MODELS, self.folder / "data" / "models", dirs_exist_ok=True)

    def remember(self, conversation: str, turns: int) -> None:
        """Let a conversation have been going on for so many questions and answers."""
        store = SqlConversationStore(self.runtime.engine, SystemClock(), LOCAL_USER)
        said = [
            message
            for number in range(turns)
            for message in (
                ModelRequest([UserPromptPart(f"Question {number}: what of the tide?")]),
                ModelResponse([TextPart(f"Answer {number}.{TABLE}")]),
            )
        ]
        talk = Conversation(conversation_id=conversation, messages=said)
        with ThreadPoolExecutor(1) as other:  # the browser's driver has an event loop in this one
            other.submit(lambda: asyncio.run(store.save(talk, scope=LOCAL_USER))).result()

    def tickets(self, conversation: str) -> list[Any]:
        """Return the tickets of a conversation."""
        mine = tickets.c.conversation_id == conversation
        with self.runtime.engine.connect() as connection:
            return list(connection.execute(select(tickets).where(mine).order_by(tickets.c.proposed_at)))

    def orders(self, symbol: str) -> list[str]:
        """Return the ids of all orders of a symbol that the engine has written."""
        with self.runtime.engine.connect() as connection:
            found = connection.execute(select(tables.orders)).all()
        return [row.client_order_id for row in found if symbol in row.content and row.role in ("entry", "close")]


@contextmanager
def chat_home(folder: Path, **acts: Any) -> Iterator[ChatHome]:
    """Yield a workspace whose model and newspaper are on this machine."""
    with PlayedModel(**acts).running() as model, FakeNews().running() as news:
        home = ChatHome(folder, model, news)
        yield home
        home.runtime.engine.dispose()
