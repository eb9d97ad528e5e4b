"""`orbiquant alert add | list | remove`"""

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orbiquant.cli.agents import read_capital
from orbiquant.cli.console import AsJson, Symbol, fields, open_runtime, show, table
from orbiquant.core import LOCAL_USER

if TYPE_CHECKING:
    from orbiquant.notices.crossings import PriceAlert
    from orbiquant.runtime import Runtime


alert_commands = typer.Typer(help="Tell me once when the price gets there.", no_args_is_help=True)


def open_alerts() -> "Runtime":
    "Return this process's runtime, with everything known that follows new bars."
    import orbiquant.desk.alerts  # noqa: F401 - it registers what it defines

    return open_runtime()


@alert_commands.command("add")
def add_command(
    symbol: Symbol,
    condition: Annotated[Literal["above", "below"], typer.Argument(metavar="SIDE", help="above or below.")],
    price: Annotated[Decimal, typer.Argument(parser=read_capital, metavar="PRICE", help="That is to be reached.")],
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Told with it.")] = None,
    as_json: AsJson = False,
) -> None:
    "Set an alert: it fires once, when the price is crossed from now on, on bars that come into the store."
    from orbiquant.desk.alerts import NewAlert, most_alerts, set_alert_for
    from orbiquant.notices.crossings import Condition

    if price >= Decimal("1e12"):
        raise typer.BadParameter(f"must be below 1e12, was {price}", param_hint="PRICE")
    if message is not None and len(message) > 500:
        raise typer.BadParameter(f"must be of at most 500 letters, was of {len(message)}", param_hint="--message")
    runtime = open_alerts()
    asked = NewAlert(symbol=symbol, condition=Condition(condition), price=price, message=message or "")
    made = set_alert_for(runtime, LOCAL_USER, asked, most_alerts(runtime.settings.notices, "premium"))
    show(made, as_json, lambda: fields({"alert": made.alert_id, "status": made.status, "told": made.message}))


@alert_commands.command("list")
def alerts_command(
    status: Annotated[Literal["active", "fired"] | None, typer.Option(help="Only these.")] = None,
    as_json: AsJson = False,
) -> None:
    "List alerts, the oldest first."
    from orbiquant.desk.alerts import AlertView
    from orbiquant.notices.alerts import list_alerts
    from orbiquant.notices.crossings import AlertStatus

    found = list_alerts(open_alerts().engine, LOCAL_USER, AlertStatus(status) if status else None)
    empty = "No alerts. Set one: orbiquant alert add BTCUSDT above 45000"
    show([AlertView.of(each) for each in found], as_json, lambda: table(map(row_of, found), *HEADS) if found else empty)


HEADS = ("alert", "symbol", "side", ">price", "status", "fired (UTC)", "message")


def row_of(
    alert: "PriceAlert",  # as it is kept
) -> tuple[object, ...]:
    "Return an alert as a row of a table."
    fired = alert.fired_at and f"{alert.fired_at:%Y-%m-%d %H:%M}"
    name, price = alert.id[:8], f"{alert.price:f}"
    return (name, alert.symbol, alert.condition, price, alert.status, fired, alert.message)


@alert_commands.command("remove")
def remove_command(
    alert: Annotated[str, typer.Argument(metavar="ALERT", help="Its id, or the beginning of it.")],
    as_json: AsJson = False,
) -> None:
    "Remove an alert, whether it waits or has fired."
    from orbiquant.desk.alerts import AlertView
    from orbiquant.notices.alerts import list_alerts, remove_alert

    database = open_alerts().engine
    named = [each.id for each in list_alerts(database, LOCAL_USER) if alert and each.id.startswith(alert)]
    if len(named) > 1:
        raise typer.BadParameter(f"{alert!r} is the beginning of {len(named)} alerts", param_hint="ALERT")
    gone = remove_alert(database, LOCAL_USER, named[0] if named else alert)
    show(AlertView.of(gone), as_json, lambda: f"{gone.symbol} {gone.condition} {gone.price:f} is removed.")
