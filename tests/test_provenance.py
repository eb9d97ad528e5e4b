# ruff: noqa: E501 – a sentence is a line
"""The gate of numbers: inventions stay out, honest answers pass, hostile text costs time in proportion to its length."""

import random
from time import process_time

import pytest

from orbiquant.copilot.numbers import bare_text, read_figures
from orbiquant.copilot.origins import NumberOrigins
from orbiquant.copilot.provenance import judge_sentence
from orbiquant.copilot.rewriting import check_sentence
from orbiquant.copilot.sentences import LONGEST_SENTENCE, SentenceFilter, check_answer
from tests.tools.answer_texts import FRESH, HELD_OUT
from tests.tools.measure_answers import HELD_OUT_SEED, SEED, measure

RESULTS = [
    ("get_price", {"symbol": "EURUSD", "price": 1.08503, "change_percent": -0.42, "high24h": 1.0911}),
    ("get_indicators", {"symbol": "EURUSD", "RSI": {"value": 71.3}, "SMA": {"sma200": 1.0791}}),
    ("get_signal", {"symbol": "EURUSD", "confidence": 0.7213, "entry_price": 1.085, "stop_loss": 1.08,
                    "take_profit": 1.095, "risk_reward": 2.0}),
    ("get_portfolio", {"balance": 10_000.0, "positions": [{"ticket": "88412", "symbol": "EURUSD", "size": 0.25}]}),
    ("get_news", {"news": [{"title": "Goldman sees gold rallying to 4,900 within months"}]}),
]  # fmt: skip


@pytest.fixture
def origins() -> NumberOrigins:
    return NumberOrigins(RESULTS, ["my target is 1.1200, I risk 150 EUR"])


HONEST = [
    "EURUSD trades at 1.0850.", "EUR/USD cotiza en 1,08503.", "RSI 14 is 71.3, above 70.", "El RSI(14) marca 71.",
    "The SMA 200 is at 1.0791.", "SMA200: 1.0791", "Confidence is 72 %.", "confianza del 72,1 %", "It fell 0.42 % today.",
    "On 3 March 2026 at 14:30 UTC nothing happened.", "El 28/11/2026 a las 15:00 no pasó nada.", "In 2024 it was calm.",
    "R:R 1:2 with entry 1.0850, stop 1.0800 and target 1.0950.", "The stop is 50 pips below 1.0850, at 1.0800.",
    "R:R = (1.0950 − 1.0850) / (1.0850 − 1.0800) = 2.0", "2 % of 10,000 = 200", "El 2 % de 10.000 = 200 USDT",
    "Trigger: 1.0850 + 12 pips = 1.0862.", "Your target of 1.1200 is far.", "You risk 150 EUR.",
    "The stop is 0.46 % below the entry of 1.0850, at 1.0800.", "Ticket 88412 holds 0.25 lots.",
    "Goldman sees gold rallying to 4,900.", "1. Wait for London (02:00–05:00).\n", "MACD (12, 26, 9) and BB (20, 2).",
    "OTE is the 62–79 % retracement.", "Risk 1–2 % of the account, R:R at least 1:2.", "S&P 500 and v2.68 on Python 3.11.",
    "I tried 312 trades, 5 folds and 3 rules over the last 200 bars.", "The 50 and 200 EMA crossed; the 20-day mean rose.",
]  # fmt: skip
INVENTED = [
    "EURUSD trades at 1.0912.", "GBPUSD trades at 1.0850.", "The RSI is 55.2.", "Confidence: 83 %.", "Win rate 61.5%.",
    "The price is 71.3.", "Support at 1.0741, resistance 1.0988.", "It rose 0.42 %.", "R:R is 1:3.5.", "Stop: 120 pips away.",
    "2 % of 10,000 = 300", "1.0850 + 0.0231 = 1.1081", "1.2000 × 1.5 = 1.8", "Ticket 99999 is filled.", "Balance 12,500 USDT.",
    "EURUSD trades at 1.1200.", "Price: １.０９12", "It is at 1.\u200b0912", "Now 1&#46;0912", "Level 1\ufe0f\u20e3.0\ufe0f\u20e3912",
    "The price is one point zero nine two.", "sesenta mil dólares", "eighty percent win rate", "BTC cotiza en 60.000.",
    "the 2650 support", "| R1 | 1.0999 |", "the close was 1 . 0 9 1 2", "EURUSD1.0912", "El oro en 2031.", "AUD/USD: 0.6612",
]  # fmt: skip


@pytest.mark.parametrize("sentence", HONEST)
def test_an_honest_sentence_stands_as_written(sentence: str, origins: NumberOrigins):
    assert judge_sentence(sentence, origins).unproven == ()
    assert check_sentence(sentence, origins).text == sentence


@pytest.mark.parametrize("sentence", INVENTED)
def test_an_invention_never_stands(sentence: str, origins: NumberOrigins):
    judged = judge_sentence(sentence, origins)
    verdict = check_sentence(sentence, origins)
    assert judged.unproven and verdict.changes and verdict.text != sentence
    assert judge_sentence(verdict.text, origins).ok


def test_the_tools_figure_takes_the_place_of_the_invented_one(origins: NumberOrigins):
    assert check_sentence("El precio de EURUSD es 1,2345.", origins, "es").text == "El precio de EURUSD es 1,08503."
    assert check_sentence("The RSI is 55.2, so wait.", origins).text == "The RSI is 71.3, so wait."


def test_a_day_of_a_long_table_is_quoted_by_its_name():
    bars = [{"time": f"2026-03-{day:02}T00:00:00Z", "close": 1 + day / 1_000} for day in range(1, 29)]
    origins = NumberOrigins([("get_ohlcv", {"symbol": "EURUSD", "data": bars})])
    assert judge_sentence("On 2026-03-14 it closed at 1.014.", origins).ok
    assert not judge_sentence("It closed at 1.014.", origins).ok


def test_nothing_left_to_say_is_said():
    said, changes = check_answer("El precio es 1,2345.", NumberOrigins(), "es")
    assert said.startswith("No tengo ninguna cifra") and changes[0].kind == "dropped"


@pytest.mark.parametrize("size", [1, 3, 17, 400])
def test_chunks_do_not_matter(size: int, origins: NumberOrigins):
    answer = " ".join(HONEST + INVENTED)
    whole, changes = check_answer(answer, NumberOrigins(RESULTS, ["my target is 1.1200, I risk 150 EUR"]))
    stream = SentenceFilter(origins)
    parts = [part for at in range(0, len(answer), size) for part in stream.feed(answer[at : at + size])]
    assert "".join([*parts, *stream.close()]) == whole and stream.changes == changes


def test_only_the_current_sentence_is_held_back(origins: NumberOrigins):
    stream = SentenceFilter(origins)
    assert "".join(stream.feed("EURUSD trades at 1.0850. It may")) == "EURUSD trades at 1.0850. "
    assert "".join(stream.feed("x" * 3 * LONGEST_SENTENCE)), "what never ends is cut"


HOSTILE = {
    "digits": "9" * 40_000, "separators": "1.,1.,1.," * 2_000, "equations": "1+1=2 = " * 2_000, "dots": "." * 100_000,
    "roles": "stop entry target RSI " * 1_000, "words": "one two point three mil " * 1_000, "parens": "((((1)" * 3_000,
    "dates": "2026-03-03 14:30 1:2 3/4 " * 800, "entities": "&#49;" * 4_000, "marks": "1\u0332" * 6_000, "empty": "",
    "nul": "\x00\x01 1.5 " * 2_000, "pairs": "EURUSD/GBPUSD-BTCUSDT " * 1_000, "commas": "1,234,567,890,123 " * 1_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_costs_time_in_proportion(kind: str, origins: NumberOrigins):
    begun = process_time()
    said, _ = check_answer(HOSTILE[kind], origins)
    assert process_time() - begun < 1.0 + 500e-6 * len(HOSTILE[kind]) and isinstance(said, str)
    read_figures(bare_text(HOSTILE[kind][:5_000]))


def test_noise_never_raises(origins: NumberOrigins):
    rng = random.Random(11)
    pool = "0123456789.,:%/()+-−=×$€ \n|*_`RSIpipsEURUSDstopdelof¼½①٣１\u200b\u0332"
    for _ in range(300):
        text = "".join(rng.choice(pool) for _ in range(rng.randrange(200)))
        said, changes = check_answer(text, origins)
        assert (said == text) == (not changes)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [SEED, HELD_OUT_SEED])
def test_both_errors_stay_small(seed: int):
    found = measure(seed)
    assert found.through == 0 and found.touched <= 0.02 * found.answers


@pytest.mark.parametrize("bank", [HELD_OUT, FRESH])
def test_both_errors_on_a_few_other_answers(bank):
    found = measure(SEED + 9, 30, bank)
    assert found.through == 0 and found.touched <= 1, found.faults


@pytest.mark.parametrize(
    ("sentence", "promised"),
    [
        ("This strategy is guaranteed to make a profit.", True), ("You can't lose with this trade.", True),
        ("Risk-free returns every month!", True), ("Ganancias garantizadas.", True), ("Es dinero seguro.", True),
        ("No return is guaranteed.", False), ("Nunca hay ganancias garantizadas.", False),
        ("The strategy lost money after costs.", False), ("La operación tiene un stop.", False),
    ],
)  # fmt: skip
def test_no_return_is_promised(sentence: str, promised: bool):
    said, changes = check_answer(f"Hello. {sentence} Bye.", NumberOrigins())
    assert (sentence in said) != promised and bool(changes) == promised
