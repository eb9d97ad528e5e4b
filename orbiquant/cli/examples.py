"""An example of every command, and how a stopped one goes on."""

from collections.abc import Mapping


EXAMPLES: Mapping[tuple[str, ...], str] = {  # words that reach a command → what is typed after `orbiquant`
    ("version",): "version --json",
    ("doctor",): "doctor",
    ("init",): "init my-research",
    ("demo",): "demo",
    ("warmup",): "warmup",
    ("train",): "train --symbol EURUSD --timeframe 1h",
    ("backtest",): "backtest --symbol EURUSD --timeframe 1h",
    ("sweep",): "sweep --symbol EURUSD --timeframe 1h --stop-atr 1:2:0.5",
    ("serve",): "serve --port 8003",
    ("settings", "show"): "settings show models",
    ("data", "import"): "data import EURUSD_1h.csv --zone Europe/Athens",
    ("data", "pull"): "data pull sample EURUSD 1h",
    ("data", "list"): "data list",
    ("data", "remove"): "data remove EURUSD 1h --yes",
    ("data", "check"): "data check EURUSD 1h --since 2017-01-01",
    ("data", "show"): "data show EURUSD 1h --rows 5",
    ("data", "follow"): "data follow BTCUSDT 1h binance",
    ("data", "vacuum"): "data vacuum --versions 10 --yes",
    ("jobs", "list"): "jobs list",
    ("jobs", "add"): (
        "jobs add btc data.follow --schedule @hourly --arg symbol=BTCUSDT --arg timeframe=1h --arg source=binance"
    ),
    ("jobs", "remove"): "jobs remove btc",
    ("jobs", "enable"): "jobs enable btc",
    ("jobs", "disable"): "jobs disable btc",
    ("jobs", "run"): "jobs run btc",
    ("jobs", "history"): "jobs history btc --limit 5",
    ("jobs", "work"): "jobs work",
    ("models", "list"): "models list",
    ("models", "show"): "models show EURUSD 1h",
    ("models", "promote"): "models promote EURUSD 1h 20240501T080000",
    ("models", "drift"): "models drift EURUSD 1h",
    ("audit", "prefix-replay"): "audit prefix-replay --symbol EURUSD --timeframe 1h --last 3000",
    ("audit", "null-market"): "audit null-market --symbol EURUSD --timeframe 1h --markets 0",
    ("audit", "trials"): "audit trials --symbol EURUSD --timeframe 1h",
    ("audit", "surrogates"): "audit surrogates --symbol EURUSD --timeframe 1h --count 19",
    ("audit", "delays"): "audit delays --bars EURUSD_1h.csv --signals signals.csv",
    ("report", "run"): "report run research --symbol EURUSD --timeframe 1h",
    ("report", "list"): "report list",
    ("report", "runs"): "report runs --limit 5",
    ("service", "build"): "service build --check",
    ("service", "keys", "create"): "service keys create dashboard --scope read",
    ("service", "keys", "list"): "service keys list",
    ("service", "keys", "revoke"): "service keys revoke 1a2b3c4d",
}
_AGAIN = "What was finished is kept: the same command again goes on from there"
GOES_ON: Mapping[str, str] = {  # the beginning of a command line → what a person does after Ctrl-C
    "train": f"{_AGAIN} (--fresh begins anew).",
    "sweep": f"{_AGAIN} (--no-resume begins anew).",
    "data pull": f"{_AGAIN}.",
    "warmup": f"{_AGAIN}.",
    "demo": f"{_AGAIN}.",
    "data import": "The store is as it was before: the same command again begins anew.",
    "report run": "`orbiquant report runs` shows how far it came; the same command again begins anew.",
    "backtest": "The same command again begins anew.",
    "jobs run": "`orbiquant jobs history` shows how it ended.",
    "audit": "The same command again begins anew.",
}
