"""Every picture OrbiQuant draws. `from orbiquant.charts import price_chart`: each chart is loaded when first asked for."""

from importlib import import_module
from typing import Any

# Module → the names that the room shows at its door.
_MODULES = {
    "theme": ("BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "THEMES", "empty_chart", "style"),
    "candles": ("MAX_CANDLES", "PHASE_COLOURS", "candle_of", "join_bars", "labels_of"),
    "prices": ("price_chart",),
    "equity": ("equity_chart", "monthly_chart", "r_chart"),
    "learning": (
        *("calibration_chart", "contribution_chart", "fold_chart", "importance_chart", "reliability_chart"),
        "skill_chart",
    ),
    "rates": ("coverage_chart", "rate_chart"),
    "shares": ("correlation_chart", "shares_chart"),
    "trials": ("chance_chart", "edge_chart", "forward_chart", "sweep_chart"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    "Return one of the room's names from its module; raise `AttributeError` for another."
    if name not in _MODULE_OF:
        raise AttributeError(f"orbiquant.charts has no {name!r}")
    return getattr(import_module(f"orbiquant.charts.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    "Return the names of the room's door."
    return sorted(__all__)
