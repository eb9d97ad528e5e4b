"""What the rules read from messages in two languages."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiquant.llm.figures import find_figures, find_since, find_timeframes, read_number
from orbiquant.llm.intents import find_concept, find_topic, fit_arguments, plain_schema
from orbiquant.llm.naming import find_job_id, find_table
from orbiquant.llm.router import Earlier, Router, Routing, complete
from orbiquant.llm.slots import mask, read_slots, spoken_language
from orbiquant.llm.vocabulary import NAMES, Vocabulary, find_symbols, fold, vocabulary_of
from orbiquant.market.instruments import known_instruments

TRADED = vocabulary_of(known_instruments(None).values())


def symbols_of(text: str) -> list[str]:
    return [each.symbol for each in find_symbols(text, TRADED)]


@pytest.mark.parametrize("symbol", sorted(known_instruments(None)))
def test_every_instrument_is_found_in_capitals(symbol: str):
    assert symbols_of(f"price of {symbol} now") == [symbol]


@pytest.mark.parametrize("spelling", ["EUR/USD", "eur/usd", "eurusd", "EUR-USD", "eur usd", "EUR_USD", "Eur/Usd"])
def test_a_pair_in_any_spelling(spelling: str):
    assert symbols_of(f"cómo va {spelling}?") == ["EURUSD"]


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("a cuánto está el oro", ["XAUUSD"]),
        ("gold and silver", ["XAUUSD", "XAGUSD"]),
        ("where is cable", ["GBPUSD"]),
        ("la libra esterlina", ["GBPUSD"]),
        ("apple o microsoft", ["AAPL", "MSFT"]),
        ("btc/usdt, ethereum y solana", ["BTCUSDT", "ETHUSDT", "SOLUSDT"]),
        ("el dólar yen", ["USDJPY"]),
        ("how many yen is a euro", ["EURJPY"]),
        ("pound against the yen", ["GBPJPY"]),
        ("bitcoi y etherium", ["BTCUSDT", "ETHUSDT"]),
        ("RSI de SOL", ["SOLUSDT"]),
        ("el sol sale por la mañana", []),
        ("send me the link to the course", []),
        ("I have no idea", []),
        ("AUDNZD", ["AUDNZD"]),
        ("PEPEUSDT now", ["PEPEUSDT"]),
        ("RSI MACD ATR", []),
        ("dividendo de Telefónica", ["TEF"]), ("pltr vs nvda", ["PLTR", "NVDA"]), ("mercado libre", ["MELI"]),
        ("johnson & johnson", ["JNJ"]), ("how is the Dow", ["US30"]), ("índice alemán", ["DAX"]),
        ("euro stoxx 50", ["EU50"]),
        ("brent y gas natural", ["UKOIL", "NATGAS"]), ("paladio", ["XPDUSD"]), ("spy qqq iwm", ["SPY", "QQQ", "IWM"]),
        ("pepe, sui y aave", ["PEPEUSDT", "SUIUSDT", "AAVEUSDT"]), ("$SHOP and $tsla", ["SHOP", "TSLA"]),
        ("russel", ["US2000"]), ("coinbse", ["COIN"]), ("peso mexicano", ["USDMXN"]), ("dólar en Colombia", ["USDCOP"]),
        ("usdtry", ["USDTRY"]), ("USD/CLP", ["USDCLP"]), ("eur usd try again", ["EURUSD"]),
        ("pesos chilenos", ["USDCLP"]),
        ("peso mexicano ante el dólar", ["USDMXN"]), ("1000 euros en yenes", ["EURJPY"]), ("dolaryen", ["USDJPY"]),
        ("arriesgo 80 euros en dólar yen", ["USDJPY"]), ("risk 75 pounds", []), ("santander a 5 euros", ["SAN"]),
    ],
)  # fmt: skip
def test_what_it_is_called(text: str, symbols: list[str]):
    assert symbols_of(text) == symbols


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("what does AMD mean in ICT", []), ("ict AMD, not the stock", []), ("AMD earnings", ["AMD"]),
        ("noticias de AMD", ["AMD"]), ("is the low near?", []), ("buy near 1.08", []), ("stop near the high", []),
        ("precio de near", ["NEARUSDT"]), ("near 5m backtest", ["NEARUSDT"]), ("sol?", ["SOLUSDT"]), ("hace sol", []),
        ("a ton of copper", ["COPPER"]), ("price of ton", ["TONUSDT"]), ("abre la op de compra", []),
        ("long op", ["OPUSDT"]),
        ("mi meta es 200", []), ("Meta una orden", []), ("dividendos de meta", ["META"]),
        ("does Meta pay a dividend", ["META"]),
        ("meta labeling of gold", ["XAUUSD"]), ("cuánta plata me queda", []), ("precio de la plata", ["XAGUSD"]),
        ("es una regla de oro", []), ("cuánto vale eso", []), ("a coffee, please", []), ("coffee 4h", ["COFFEE"]),
        ("nueva versión de la acción", []), ("me interesa la alianza", []), ("ayer cobré el bono", []),
        ("el cobre", ["COPPER"]),
        ("WHY NOW? SEND ME THE LINK TO ALL", []), ("VENDE TODO EL ORO YA", ["XAUUSD"]), ("ROE, EBITDA and OPEC", []),
        ("price in real time, tiempo real", []), ("open the gap, target 1.10, spot price", []), ("entry and pen", []),
    ],
)  # fmt: skip
def test_a_name_that_is_a_word_needs_a_market_around_it(text: str, symbols: list[str]):
    assert symbols_of(text) == symbols


@pytest.mark.parametrize(
    ("text", "timeframe"),
    [
        *((text, "4h") for text in ("4h", "H4", "4 horas", "four hours", "4-hour", "cuatro horas")),
        *((text, "1d") for text in ("daily", "diario", "1d", "D1")),
        *((text, "1h") for text in ("hourly", "una hora", "1 hora", "horario", "one hour")),
        *((text, "15m") for text in ("15 minutos", "15min", "fifteen minutes", "M15", "15m")),
        *((text, "30m") for text in ("media hora", "half hour", "30 min")),
        *((text, "1w") for text in ("weekly", "semanal", "1 week")),
    ],
)
def test_a_timeframe_in_words(text: str, timeframe: str):
    assert [each.timeframe for each in find_timeframes(f"velas de {text}")] == [timeframe]


@pytest.mark.parametrize("text", ["the last 24 hours", "15 minutes ago", "4 lots", "2h", "100 days", "hola"])
def test_no_timeframe(text: str):
    assert find_timeframes(text) == []


@pytest.mark.parametrize(
    ("digits", "spanish", "value"),
    [
        *(("2,800", each, 2800.0) for each in (True, False)),
        *(("12,345.60", each, 12345.6) for each in (True, False)),
        *(("12.345,60", each, 12345.6) for each in (True, False)),
        ("1,07", True, 1.07), ("1,085", True, 1.085), ("0,5", False, 0.5), ("10.000", True, 10000.0),
        ("10.000", False, 10.0), (".67", True, 0.67), ("1,000,000", False, 1e6), ("1.0850", True, 1.085),
    ],
)  # fmt: skip
def test_commas_and_dots(digits: str, spanish: bool, value: float):
    assert read_number(digits, spanish) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("70 mil", [(70_000, "")]), ("25k", [(25_000, "")]), ("0,5 %", [(0.5, "%")]), ("half a lot", [(0.5, "lots")]),
        ("medio lote", [(0.5, "lots")]), ("dos por ciento", [(2, "%")]), ("$50", [(50, "money")]),
        ("20 pips", [(20, "pips")]), ("cien mil", [(100_000, "")]), ("4h", []), ("0.1 lotes", [(0.1, "lots")]),
    ],
)  # fmt: skip
def test_numbers_in_words(text: str, found: list[tuple[float, str]]):
    assert [(each.value, each.unit) for each in find_figures(text, spanish=True)] == found


ORDERS: list[tuple[str, dict[str, Any]]] = [
    (
        "compra 0.5 lotes de EURUSD con stop en 1.0790 y objetivo 1.0910",
        {"action": "BUY", "size": 0.5, "stop_loss": 1.079, "take_profit": 1.091},
    ),
    ("short gold 0.2 lot sl 2365 tp 2290", {"action": "SELL", "size": 0.2, "stop_loss": 2365, "take_profit": 2290}),
    ("BUY XAUUSD 0.01 SL 2300 TP 2380", {"action": "BUY", "size": 0.01, "stop_loss": 2300, "take_profit": 2380}),
    ("vende un lote de cable, stop loss: 1,2850", {"action": "SELL", "size": 1.0, "stop_loss": 1.285}),
]


@pytest.mark.parametrize(("text", "wanted"), ORDERS)
def test_an_order_is_read_whole(text: str, wanted: dict[str, Any]):
    arguments, missing = fit_arguments(read_slots(text, TRADED), plain_schema("execute_trade"))
    assert {name: arguments[name] for name in arguments if name != "symbol"} == wanted and not missing


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ochenta y dos mil quinientos", 82_500), ("two thousand four hundred and five", 2405),
        ("mil doscientos", 1200),
        ("one point zero eight five", 1.085), ("uno coma diez", 1.1), ("2 mil 400", 2400), ("3 mil doscientos", 3200),
        ("dos lotes y medio", 2.5), ("one and a half lots", 1.5), ("un cuarto de lote", 0.25),
        ("una décima de lote", 0.1),
        ("half of one percent", 0.5), ("la mitad del uno por ciento", 0.5), ("fifteen cents", 0.15),
        ("mil pesos", 1000),
        ("a fifth of a percent", 0.2),
        *((text, None) for text in ("seis con cinco", "twelve fifty", "1/2 lot", "mil gracias", "dos o tres")),
        *((text, None) for text in ("tell me once", "a seventh of a lot")),
    ],
)  # fmt: skip
def test_number_words_are_one_number_or_none(text: str, found: float | None):
    assert [each.value for each in find_figures(text, spanish="once" not in text)] == ([] if found is None else [found])


SIDES: list[tuple[str, str]] = [
    *((text, "BUY") for text in ("get me long", "oro comprado", "cómpreme oro", "un larguito", "al alza")),
    *((text, "SELL") for text in ("take the short", "una venta", "véndala", "ponme corto", "a la baja", "sold")),
    *((text, "") for text in ("how long", "largo plazo", "long-term", "compra o vende", "corto en 2300")),
    ("stop de venta", ""),
]


@pytest.mark.parametrize(("text", "side"), SIDES)
def test_a_side_is_one_or_is_asked_for(text: str, side: str):
    assert read_slots(text, TRADED).get("action", "") == side


@pytest.mark.parametrize(
    "text",
    [
        "buy 0.1 gold, out at 2290", "compra 0.1 de oro cortando en 2290", "long 0.1 gold, protective stop 2290",
        "compra 0.1 de oro con salida en 2290", "0.1 gold long, invalidation 2290",
        "compra oro 0.1 y el stop déjelo en 2290",
        "buy gold 0.1, 2290 should it hurt", "long gold with 0.1 and use 2,290 as my stop",
        "compra 0.1 de oro protegido en 2290",
    ],
)  # fmt: skip
def test_a_stop_has_many_words(text: str):
    arguments, missing = fit_arguments(read_slots(text, TRADED), plain_schema("execute_trade"))
    assert (arguments["stop_loss"], arguments["size"], missing) == (2290, 0.1, [])


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        *((f"buy {size}, stop 0.48", ["size"]) for size in ("500 XRP", "3 XRP shares", "XRP 2 contracts", "XRP 0.5")),
        ("buy 0.1 XRP 0.2, stop 5", ["size"]), ("compra XRP un mini lote, stop 5", ["size"]),
        ("buy 0.1 lots of gold stop 2290 stop 2280", ["stop_loss"]),
        ("vende y compra 0.1 lotes de oro stop 2300", ["action"]),
        ("short gold 0.1 lots with a stop of 20 pips", ["stop_loss"]), ("buy 0.1 lots of gold, stop 2%", ["stop_loss"]),
        ("corto 0,1 lotes de oro", ["stop_loss"]), ("sin stop compra 0.1 lotes de oro", ["stop_loss"]),
        ("buy gold at 2300 with stop 2290", ["size"]), ("sell 0.1 lots of gold", ["stop_loss"]),
        ("buy 0.1 lots, stop 2300", ["symbol"]), ("0.1 lots of gold stop 2300", ["action"]),
    ],
)  # fmt: skip
def test_what_an_order_lacks_is_told_and_never_invented(text: str, missing: list[str]):
    assert fit_arguments(read_slots(text, TRADED), plain_schema("execute_trade"))[1] == missing


@pytest.mark.parametrize(
    ("text", "condition", "price"),
    [
        ("alert me when gold breaks 2400", "above", 2400), ("avísame si EURUSD cae bajo 1,07", "below", 1.07),
        ("tell me if bitcoin is under 58k", "below", 58_000), ("notifícame cuando supere 70 mil", "above", 70_000),
        ("ping me at 155.50 if USDJPY gets up there", "above", 155.5),
    ],
)  # fmt: skip
def test_an_alert_has_a_direction_and_a_price(text: str, condition: str, price: float):
    arguments, _ = fit_arguments(read_slots(text, TRADED), plain_schema("set_alert"))
    assert (arguments["condition"], arguments["price"]) == (condition, price)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("alert me on gold at 2400", {"price": 2400}),
        ("si el oro vuelve a 2400", {"price": 2400}),
        ("gold over two thousand four hundred dollars", {"price": 2400, "condition": "above"}),
        ("si el oro pierde 2.400", {"price": 2400, "condition": "below"}),
        ("cuando el oro recupere los 2400", {"price": 2400, "condition": "above"}),
        ("if gold falls through 2400", {"price": 2400, "condition": "below"}),
        ("gold above 2400 or below 2300", {}),
    ],
)
def test_an_alert_without_a_direction_or_with_two_has_none(text: str, wanted: dict[str, Any]):
    arguments, _ = fit_arguments(read_slots(text, TRADED), plain_schema("set_alert"))
    assert arguments == {"symbol": "XAUUSD"} | wanted


def test_an_answer_closes_what_two_readings_left_open(monkeypatch: pytest.MonkeyPatch):
    text, schema = "alert me if gold rises or falls to 2400", plain_schema("set_alert")
    asked = complete("set_alert", text, read_slots(text, TRADED), 1.0, schema, Earlier())
    monkeypatch.setattr(Router, "_fresh", lambda *_: [asked])  # which tool it is is not the matter here
    [found] = Router(vocabulary=TRADED).route("below", {"set_alert": schema}, Earlier(unanswered=text))
    assert asked.missing == ("condition",) and found.ready
    assert found.arguments == {"symbol": "XAUUSD", "price": 2400, "condition": "below"}


FRIDAY = date(2026, 11, 27)


def called(tool: str, text: str, schema: dict[str, Any] | None = None) -> Routing:
    return complete(tool, text, read_slots(text, TRADED, "", FRIDAY), 1.0, schema or plain_schema(tool), Earlier())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("gold, stop 30 pips, risk 50 dollars", {"stop_pips": 30, "risk_amount": 50}),
        ("oro con stop en 2290, riesgo 0.5", {"stop": 2290, "risk_percent": 0.5}),
        ("nasdaq stop a 40 puntos, medio por ciento", {"stop_pips": 40, "risk_percent": 0.5}),
        ("gold 2300 stop 2290, account of six thousand", {"entry": 2300, "stop": 2290, "balance": 6000}),
    ],
)
def test_a_size_needs_neither_price_nor_balance(text: str, wanted: dict[str, float]):
    found = called("calculate_position_size", text)
    assert found.ready and {name: value for name, value in found.arguments.items() if name != "symbol"} == wanted


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("size for gold, risk 1%", "stop"), ("gold stop 2290 risk 5", "risk_percent"),
        ("euro stop 40 points", "stop"), ("gold entry 2300, stop 3", "stop"), ("gold stop 2290, 12k", "balance"),
        ("gold stop 2290, a 30th of a percent", "risk_percent"),
    ],
)  # fmt: skip
def test_a_size_of_two_readings_is_asked_back(text: str, missing: str):
    assert missing in called("calculate_position_size", text).missing


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("oro stop 2290, 1% de 5000 usd", {"stop": 2290, "risk_percent": 1, "balance": 5000}),
        ("eth stop 3310, entry 3400, what fits 2% of 7,500", {"stop": 3310, "risk_percent": 2, "balance": 7500}),
        ("size gold, stop 2310, 2000 in the account, lose no more than 20", {"balance": 2000, "risk_amount": 20}),
        ("EURUSD with a 35-pip stop, risk 1% of 8,000", {"stop_pips": 35, "risk_percent": 1, "balance": 8000}),
        ("lots for the euro, stop 1.0760, ten grand pot, thirty at risk", {"balance": 10_000, "risk_amount": 30}),
    ],
)
def test_what_a_size_is_reckoned_from_is_read(text: str, told: dict[str, float]):
    found = called("calculate_position_size", text).arguments
    assert {name: found.get(name) for name in told} == told


def test_an_order_against_itself_is_asked_back():
    assert called("execute_trade", "buy 0.1 lots of gold at 2300, stop 2310").missing == ("stop_loss",)
    assert called("execute_trade", "sell 0.1 lots of gold, stop 2290, target 2300").missing == ("stop_loss",)
    assert called("execute_trade", "sell 0.1 lots of gold, stop 2310, target 2200 target 2100").missing == (
        "take_profit",
    )


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("gold candles since Monday", 120), ("velas del oro de ayer en 4h", 12),
        ("velas diarias del oro, última semana", 7),
        ("gold candles 1h of last month", None), ("gold bars of 2017-06-01", None),
    ],
)  # fmt: skip
def test_bars_of_a_past_day_are_counted_or_asked_for(text: str, limit: int | None):
    found = called("get_ohlcv", text)
    assert found.arguments.get("limit") == limit and found.missing == (() if limit else ("date",))


def test_what_a_price_did_since_yesterday_is_told_and_a_past_close_is_not():
    assert called("get_price", "is gold up since yesterday?").ready and called("get_price", "oro desde anoche").ready
    assert (
        called("get_price", "gold close of last Friday").missing == ("date",) == called("get_price", "oro ayer").missing
    )


@pytest.mark.parametrize(
    ("text", "concept"),
    [
        ("what is a liquidity sweep?", "liquidity sweep"), ("¿Qué es el drawdown?", "drawdown"),
        ("explícame el RSI para principiantes", "RSI"), ("i don't get fair value gaps", "fair value gaps"),
        ("explica el order block en inglés, nivel avanzado", "order block"),
        ("what is drawdown, advanced level", "drawdown"),
        ("explain FVG for beginners in Spanish", "FVG"),
        ("para qué sirve el VWAP", "VWAP"), ("what does AMD mean in trading", "AMD"), ("explain it", ""),
        ("my mentor keeps saying order block and I nod, what is it", "order block"),
        ("Mi primo dice que todo es un barrido de liquidez, ¿eso qué es?", "barrido de liquidez"),
        ('I read "profit factor" in my own report and have no clue what they mean', "profit factor"),
        ("honestly I always mix up BOS and CHoCH, which one is which?", "BOS and CHoCH"),
        ("everyone talks about market depth", "everyone talks about market depth"),
    ],
)  # fmt: skip
def test_what_is_asked_about(text: str, concept: str):
    assert find_concept(text) == concept


@pytest.mark.parametrize("gap", ["\x85", "\n", "\u2003", " - "])
def test_any_gap_stands_before_a_unit(gap: str):
    assert [each.timeframe for each in find_timeframes(f"a{gap}hour of gold")] == ["1h"]


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("sweep 64, done?", "64"), ("status #119", "119"), ("¿qué dio el número 40?", "40"),
        ("el número doce ya?", "12"),
        ("where is d71a", "d71a"), ("is BT-20931 stuck", "BT-20931"), ("mi trabajo 0093", "0093"),
        ("el 31 ya salió", "31"),
        ("has task 9 moved past 50 percent", "9"), ("check 509, I queued it at 9", "509"), ("job forty-two?", "42"),
        ("Not job 50 but job 51: is it done?", "51"), ("el treinta y uno, ¿sigue?", "31"),
        ("has the backtest finished", ""), ("¿acabaron la 50 y la 51?", ""), ("it has run 3 hours", ""),
        ("8 % y ya", ""),
        ("¿terminó el backtest de 2023 en 4h?", ""), ("is the US30 sweep ready", ""), ("el informe de las 10:30", ""),
        ("hace 20 minutos lo lancé", ""), ("the rsi14 sweep", ""), ("job 12 or 13?", ""), ("", ""),
        ("sobre el encargo 806: ¿está?", "806"),
    ],
)  # fmt: skip
def test_a_job_is_the_one_that_is_named(text: str, job: str):
    assert find_job_id(text, asked=True) == job


def test_a_number_is_no_job_where_nobody_is_known_to_ask_for_one():
    assert not find_job_id("gold above 2400") and not find_job_id("últimas 30 velas")
    assert find_job_id("check on job abc123") == "abc123" == read_slots("check on job abc123")["job_id"]


@pytest.mark.parametrize(
    ("text", "name", "column"),
    [
        ("plot the close column of `prices`", "prices", "close"), ("dibuja el rsi de `ind`", "ind", "rsi"),
        ("histogram of df_iwm", "df_iwm", ""), ("what does the table called trades hold", "trades", ""),
        ("la tabla llamada ventas, ¿qué trae?", "ventas", ""), ("bars['volume'] in a plot", "bars", "volume"),
        ("show me `ind`'s atr", "ind", "atr"), ("Is my `fills` table empty?", "fills", ""),
        ("grafica df close", "df", "close"),
        ("HAZ UN DESCRIBE AL DF RETORNOS", "RETORNOS", ""), ("types of X_train", "X_train", ""),
        ("shape of X", "X", ""),
        ("gráfico de la columna volumen de velas_h4", "velas_h4", "volumen"), ("shape of trades", "trades", ""),
        ("mi dataframe de precios", "", ""), ("plot my frame", "", ""), ("compare `a` and `b`", "", ""),
        ("convierte mi dataframe en una figura de velas", "", ""),
        ("plot the two columns high and low of df", "df", ""),
        ("is the frame sorted by time", "", ""), ("what's in `savings`", "savings", ""),
        ("make a chart, please", "", ""),
    ],
)  # fmt: skip
def test_a_table_and_its_column_are_those_that_are_named(text: str, name: str, column: str):
    assert find_table(text, asked=True) == (name, column)


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("which lesson covers order blocks", "order blocks"), ("lección fvg", "fvg"), ("what should I study first", ""),
        ("quiero aprender velas japonesas, ¿por dónde empiezo?", "velas japonesas"), ("LISTA DE CURSOS", ""),
        ("which part deals with machine learning, I'm no coder", "machine learning"),
        ("is there a beginner course", ""),
        ("acabé la clase del RSI, ¿qué me toca ahora?", "RSI"), ("details of the ICT course", "ICT"),
        ("¿hay clases de análisis técnico para novatos?", "análisis técnico"), ("¿cuánto dura el temario?", ""),
    ],
)  # fmt: skip
def test_a_topic_is_what_is_to_be_learnt(text: str, topic: str):
    assert find_topic(text) == topic


def test_positions_are_of_the_symbol_that_is_named_and_of_no_earlier_one():
    schema, earlier = plain_schema("get_positions"), Earlier(calls=(("get_price", {"symbol": "XAUUSD"}),))
    asked = {"how is my cable position": {"symbol": "GBPUSD"}, "mis posiciones y su beneficio": {}, "what is open": {}}
    for text, arguments in asked.items():
        told = complete("get_positions", text, read_slots(text, TRADED), 1.0, schema, earlier)
        assert told.ready and dict(told.arguments) == arguments


def test_a_topic_is_named_or_is_not():
    assert find_topic("recomiéndame un curso de gestión del riesgo") == "gestión del riesgo"
    assert find_topic("what courses do you have") == ""


def test_a_schema_has_the_last_word():
    slots = read_slots("últimas 50 velas de oro en 4h", TRADED)
    assert fit_arguments(slots, {"properties": {"symbol": {"type": "string"}}}) == ({"symbol": "XAUUSD"}, [])
    renamed = {"properties": {"bars": {"type": "integer"}, "timeframe": {"enum": ["1h"]}}, "required": ["symbol"]}
    assert fit_arguments(slots, renamed) == ({"bars": 50}, ["symbol"])


def test_days_count_from_today():
    today = date(2026, 11, 29)
    assert find_since("qué cerré ayer", today) == date(2026, 11, 28)
    assert find_since("trades since 2026-10-01", today) == date(2026, 10, 1)
    assert find_since("los últimos 30 días", today) == date(2026, 10, 30)
    assert find_since("since 2026-13-40", today) is None


def test_masks_hide_what_is_named_and_nothing_else():
    assert mask("RSI del oro en 4h", TRADED) == mask("RSI del BTC/USDT en 1h", TRADED)
    assert mask("vende 0.1 lotes de oro, stop 2300", TRADED) == mask("vende 2 lotes de apple, stop 150", TRADED)
    assert "rsi" in mask("RSI del oro", TRADED)


def test_languages():
    assert [spoken_language(text) for text in ("dame el precio", "give me the price", "señal", "BTC")] == [
        *("es", "en", "es", "en")
    ]


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("avísame si bitcoin supera 58.500", 58_500), ("avísame si el oro cae por debajo de 2.600", 2600),
        ("avísame si ETH llega a 12.750", 12_750), ("avísame si EURUSD cae bajo 1.195", 1.195),
        ("avísame si el USDJPY supera 155.500", 155.5), ("alert me when EURUSD is above 1,195", 1.195),
        ("alert me when bitcoin is above 61,500", 61_500), ("avísame si XAUUSD supera 2350.500", 2350.5),
    ],
)  # fmt: skip
def test_three_digits_behind_a_dot_are_thousands_but_in_the_price_of_a_pair(text: str, price: float):
    slots = read_slots(text, TRADED)
    assert fit_arguments(slots, plain_schema("set_alert"))[0]["price"] == price and "unclear" not in slots


def test_a_balance_is_thousands_whatever_the_symbol():
    slots = read_slots("tamaño de posición EURUSD con saldo de 25.500, entrada 1.200 y stop 1.195", TRADED)
    assert {name: slots[name] for name in ("balance", "entry", "stop_loss")} == {
        **{"balance": 25_500, "entry": 1.2, "stop_loss": 1.195},
    }


def test_a_price_that_may_be_thousands_is_unclear():
    slots = read_slots("avísame si solana supera 145.500", TRADED)
    assert slots["unclear"] == ["145.500"] and "free" not in slots and "level_price" not in slots
    assert "unclear" not in read_slots("alert me when solana is above 145.500", TRADED)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "position size EURUSD balance 10000 risk 1% entry 1.20 stop 1.195",
            {"balance": 10_000, "risk_percent": 1, "entry": 1.2, "stop_loss": 1.195},
        ),
        ("EURUSD risk $100 balance 10000 stop 1.195", {"risk_amount": 100, "balance": 10_000, "stop_loss": 1.195}),
        ("10000 account, 1.195 stop", {"balance": 10_000, "stop_loss": 1.195}),
    ],
)
def test_the_word_before_a_number_wins(text: str, named: dict[str, float]):
    assert {name: read_slots(text, TRADED).get(name) for name in named} == named


@pytest.mark.parametrize("text", ["<script>alert(1)</script> EURUSD", "<b>alert me</b> EURUSD"])
def test_markup_is_no_direction_and_a_call_no_price(text: str):
    assert fit_arguments(read_slots(text, TRADED), plain_schema("set_alert")) == ({"symbol": "EURUSD"}, ["price"])


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str):
    assert len(fold(text)) == len(text)
    read_slots(text, TRADED)
    for told in (find_job_id(text, asked=True), *find_table(text, asked=True), find_concept(text), find_topic(text)):
        assert told in text or told.isdigit()
    assert isinstance(mask(text, TRADED), str)


def test_names_are_folded():
    assert all(fold(name) == name for name in NAMES) and all(symbol.isupper() for symbol in Vocabulary().names.values())
