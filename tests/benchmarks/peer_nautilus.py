"""What nautilus_trader makes of bars with an EMA cross: run by an interpreter of its own, imports nothing of OrbiQuant.

Run `python peer_nautilus.py BARS.csv FAST SLOW AGENTS`; prints one line of JSON.
"""

import json
import sys
import time
from decimal import Decimal

import nautilus_trader
import pandas as pd
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import BacktestEngineConfig, LoggingConfig
from nautilus_trader.examples.strategies.ema_cross import EMACross, EMACrossConfig
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.test_kit.providers import TestInstrumentProvider


def main(path: str, fast: int, slow: int, agents: int) -> None:
    """Print how fast the bars were gone through, and how many fills came of it."""
    table = pd.read_csv(path, index_col="time", parse_dates=True)
    instrument = TestInstrumentProvider.btcusdt_binance()
    kind = BarType.from_str(f"{instrument.id}-5-MINUTE-LAST-EXTERNAL")
    bars = BarDataWrangler(kind, instrument).process(table)
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        venue=Venue("BINANCE"), oms_type=OmsType.HEDGING, account_type=AccountType.MARGIN, base_currency=None,
        starting_balances=[Money(100_000_000, USDT), Money(1_000, BTC)],
    )  # fmt: skip
    engine.add_instrument(instrument)
    engine.add_data(bars)
    for number in range(agents):
        config = EMACrossConfig(
            instrument_id=instrument.id, bar_type=kind, trade_size=Decimal("0.1"), fast_ema_period=fast,
            slow_ema_period=slow, subscribe_trade_ticks=False, request_bars=False, order_id_tag=f"{number:03}",
        )  # fmt: skip
        engine.add_strategy(EMACross(config))
    wall, cpu = time.perf_counter(), time.process_time()
    engine.run()
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    fills = len(engine.trader.generate_fills_report())
    print(json.dumps(took | {"bars": len(bars), "fills": fills, "version": nautilus_trader.__version__}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
