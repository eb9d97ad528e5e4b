"""Writes a database's tables as JSON, with nothing but the database's own client: `dump.py URL FILE`."""

import json
import sqlite3
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

TABLES = (
    *("agents", "checkpoints", "decisions", "intents", "orders", "fills", "positions", "trades"),
    *("paper_accounts", "paper_orders", "paper_guards", "paper_fills"),
    *("journal_entries", "journal_postings", "journal_balances", "kill_switches"),
    *("engine_requests", "fund_events", "unit_lots", "accounts", "account_transactions", "performance_snapshots"),
)


def plain(value: Any) -> Any:
    """Return a value as JSON holds it, moments in UTC without a zone."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, str) and len(value) >= 19 and value[4] + value[7] + value[10] == "-- ":
        return value.replace(" ", "T")
    return value


def dump(url: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table."""
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"))
        prefix = ""
    else:
        import psycopg

        connection, prefix = psycopg.connect(url.replace("+psycopg", "")), "investment."
    found = {}
    for table in TABLES:
        rows = connection.execute(f"SELECT * FROM {prefix}{table}")
        names = [column[0] for column in rows.description]
        found[table] = [dict(zip(names, map(plain, row), strict=True)) for row in rows.fetchall()]
    connection.close()
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(dump(sys.argv[1])))
