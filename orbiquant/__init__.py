"""Research notebooks that are the library: causal ICT/AMD features, honest out-of-sample models, backtests, reports and a generated service.

Modules:

- `orbiquant.trading.brokers.binance.guards`: A position is never left without its stop on purpose: what must be lifted to be changed is put back in the same breath."""

from importlib import import_module

from orbiquant._caches import choose_cache
from orbiquant._version import __version__

choose_cache()  # before anything brings numba along, which reads it once
TYPE_CHECKING = False  # `typing` itself would take ten times what the rest of this page takes
if TYPE_CHECKING:
    from typing import Any

# Room → the names it lends to the front door, each loaded when it is first asked for.
_ROOMS = {
    "market.reading": ("read_bars",),
    "market.synthetic": ("synthetic_market",),
    "domain": ("Costs", "SeriesId", "Signal", "Timeframe"),
    "features.config": ("PhaseConfig",),
    "features.ict": ("ict_events",),
    "features.matrix": ("build_features",),
    "features.phases": ("detect_phases",),
    "features.spec": ("FeatureSpec",),
    "policies": ("find_policy",),
    "signals": ("generate_signals",),
    "line": ("Line", "LineSpec"),
    "backtest.simulate": ("simulate", "summarise"),
    "backtest.sweep_plan": ("SweepGrid",),
    "runtime": ("current",),
    "research.spec": ("ResearchSpec",),
    "research.sweeps": ("run_sweep",),
    "desk.study": ("load_bars", "store_sample", "study"),
    "desk.trade_practice": ("store_practice",),
    "strategies.table_rules": ("TableRule",),
    "desk.rules": ("check_rule", "replay_agent", "sweep_rule", "trade_rule"),
    "desk.training": ("audit_prefixes", "backtest_model", "train_model"),
    "desk.signals": ("latest_signal",),
    "reports.run": ("run_report",),
    "charts.prices": ("price_chart",),
    "charts.views": ("view",),
    "charts.widget": ("candle_chart",),
    "desk.watched_chart": ("live_chart",),
    "charts.equity": ("equity_chart",),
    "copilot.widget": ("Chat",),
    "core": ("endpoint", "tool"),
    "service.notebook": ("serve_notebook",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = ["__version__", *_ROOM_OF]


def __getattr__(name: str) -> "Any":
    "Return one of the names of the front door from its room; raise `AttributeError` with the nearest for another."
    if name not in _ROOM_OF:
        from orbiquant.core import suggest

        raise AttributeError(f"orbiquant has no {name!r}{suggest(name, _ROOM_OF)}")
    return getattr(import_module(f"orbiquant.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    "Return the names of the front door."
    return sorted(__all__)


def load_ipython_extension(ipython: "Any") -> None:
    "Give an IPython shell `%copilot`, `%signal` and `%phases`: `%load_ext orbiquant`."
    import_module("orbiquant.copilot.magics").load_magics(ipython)


def unload_ipython_extension(ipython: "Any") -> None:
    "Take them away again."
    import_module("orbiquant.copilot.magics").unload_magics(ipython)
