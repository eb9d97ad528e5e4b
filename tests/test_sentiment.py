"""What headlines mean, counted on labelled ones; FinBERT's path with random weights; moods and all together."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_news import ask, heard, runtime_for

pytest.register_assert_rewrite("contracts")

from contracts.sentiment import SentimentModelContract  # noqa: E402

from orbiquant.core import ModelError, NotFoundError, configure_logging  # noqa: E402
from orbiquant.desk.news import get_sentiment  # noqa: E402
from orbiquant.llm.finance_words import MOST_READ, sentence_value, word_list  # noqa: E402
from orbiquant.llm.sentiment import FinBert, WordSentiment, headline_language, open_sentiment, sentiment_label  # noqa: E402
from orbiquant.ports import SentimentModel  # noqa: E402
from orbiquant.runtime import using  # noqa: E402
from tests.tools.fake_providers import cut, reply  # noqa: E402
from tests.tools.fake_vendors import KEY, FakeFear, FakeForums, FakeNews, article, hang, html  # noqa: E402

__all__ = ["heard"]  # a fixture
FIXTURES = Path(__file__).parent / "fixtures" / "sentiment"


class Labelled(NamedTuple):
    """A headline, and what it means."""

    text: str
    language: str
    label: str
    half: str


@cache
def headlines(half: str) -> tuple[Labelled, ...]:
    """Return the labelled headlines of a half."""
    lines = (FIXTURES / "headlines.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(each for line in lines if (each := Labelled(**json.loads(line))).half == half)


# --- counted ---


@cache
def right(reader: str, language: str) -> tuple[bool, ...]:
    """Return for each headline of the test half whether a reader has its label."""
    asked = [each for each in headlines("test") if each.language == language]
    texts = [each.text for each in asked]
    if reader == "words":
        found = [sentiment_label(score) for score in WordSentiment().score(texts)]
    else:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        analyse = SentimentIntensityAnalyzer().polarity_scores
        scores = [analyse(text)["compound"] for text in texts]  # its authors' thresholds: 0.05
        found = ["positive" if score >= 0.05 else "negative" if score <= -0.05 else "neutral" for score in scores]
    return tuple(label == each.label for label, each in zip(found, asked, strict=True))


def interval(hits: tuple[bool, ...]) -> tuple[float, float]:
    """Return Wilson's interval of 95 % for a share."""
    from scipy.stats import binomtest

    found = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def test_the_headlines_are_what_they_are_said_to_be():
    both = [*headlines("development"), *headlines("test")]
    assert len(both) == len({each.text for each in both}) == 200
    counts = Counter((each.language, each.label) for each in both)
    shares = {"positive": 38, "negative": 38, "neutral": 24}
    assert counts == {(language, label): count for language in ("en", "es") for label, count in shares.items()}
    assert "written for this test" in (FIXTURES / "README.md").read_text(encoding="utf-8")
    assert all(headline_language(each.text) == each.language for each in both)


@pytest.mark.parametrize(("language", "least"), [("en", 0.85), ("es", 0.78)])
def test_the_words_are_right_more_often_than_vader(language: str, least: float):
    from scipy.stats import binomtest

    ours, vader = right("words", language), right("vader", language)
    only_ours = sum(a and not b for a, b in zip(ours, vader, strict=True))
    only_vader = sum(b and not a for a, b in zip(ours, vader, strict=True))
    for name, hits in (("words", ours), ("VADER", vader)):
        print(language, name, f"{sum(hits)} of {len(hits)}, 95 %", *map("{:.2f}".format, interval(hits)))
    assert interval(ours)[0] > least, "the lower end of 95 %"
    assert interval(ours)[0] > interval(vader)[1]
    assert binomtest(only_ours, only_ours + only_vader, alternative="greater").pvalue < 1e-4  # McNemar, exact


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("Profit rises", "Profit falls"),
        ("Losses narrow", "Losses widen"),
        ("Unemployment falls", "Unemployment rises"),
        ("Smaller loss than expected", "Bigger loss than expected"),
        ("Regulator lifts ban on the company", "Regulator widens ban on the company"),
        ("Firm no longer expects a loss", "Firm no longer expects a profit"),
        ("Shares rise despite weak demand", "Shares fall despite strong demand"),
        ("El beneficio sube", "El beneficio cae"),
        ("Las pérdidas se reducen", "Las pérdidas aumentan"),
        ("El paro baja", "El paro sube"),
        ("La morosidad cae", "La morosidad sube"),
        ("La acción sube pese a la caída de ventas", "La acción cae pese a la subida de ventas"),
        ("La deuda disminuye", "LA DEUDA AUMENTA"),
        ("El paro baja más de lo previsto", "El paro sube y supera las previsiones"),
    ],
)
def test_the_same_words_turned(good: str, bad: str):
    better, worse = WordSentiment().score([good, bad])
    assert better > 0.15 and worse < -0.15


def test_accents_capitals_and_quotes_change_nothing():
    spoken = ("La inflación repunta", "LA INFLACIÓN REPUNTA", "la inflacion repunta", "La inflacio\u0301n repunta")
    assert len({sentence_value(text, "es") for text in spoken}) == 1
    assert sentence_value("Firm isn’t profitable", "en") == sentence_value("Firm isn't profitable", "en")


def test_a_book_takes_no_longer_than_its_beginning():
    begin = time.process_time()
    WordSentiment().score(["fears of losses fade and " * 100_000] * 10)
    assert time.process_time() - begin < 2 and MOST_READ == 2_000


def test_no_word_plays_two_parts_that_contradict():
    for language in ("en", "es"):
        known = word_list(language)
        for entries in (known.words, known.stems):
            torn = [word for word, parts in entries.items() if {"up", "down"} <= parts or {"praise", "blame"} <= parts]
            assert torn == [], language


class TestWords(SentimentModelContract):
    """The contract, offline."""

    @pytest.fixture
    def model(self) -> SentimentModel:
        """Return the words."""
        return open_sentiment()


# --- FinBERT's path, with random weights ---


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Path]:
    """Return a function that makes a folder as FinBERT's is, of a tiny classifier with given labels."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    @cache
    def made(labels: tuple[str, ...]) -> Path:
        folder = tmp_path_factory.mktemp("finbert")
        words = "[PAD] [UNK] [CLS] [SEP] [MASK] gold profits losses of the bank rise fall as dollar a"
        (folder / "vocab.txt").write_text(words.replace(" ", "\n"), encoding="utf-8")
        BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
        torch.manual_seed(7)
        config = BertConfig(
            vocab_size=len(words.split()), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=160, id2label=dict(enumerate(labels)),
            label2id={label: at for at, label in enumerate(labels)}, initializer_range=0.5,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder)
        return folder

    return made


FINBERT = ("positive", "negative", "neutral")


class TestFinBert(SentimentModelContract):
    """The contract, with random weights: loading, batches, bounds; not wit."""

    @pytest.fixture
    def model(self, weights: Callable[..., Path]) -> SentimentModel:
        """Return the classifier."""
        return open_sentiment(weights(FINBERT))


def test_the_score_is_what_speaks_for_good_less_what_speaks_for_bad(weights: Callable[..., Path]):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    text = "Profits of the bank fall as the dollar rises"
    [score] = open_sentiment(weights(FINBERT)).score([text])
    tokenizer = AutoTokenizer.from_pretrained(weights(FINBERT))
    model = AutoModelForSequenceClassification.from_pretrained(weights(FINBERT)).eval()
    with torch.no_grad():
        shares = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
    assert score == pytest.approx(float(shares[0] - shares[1]), abs=1e-5) and abs(score) > 1e-3


def test_labels_are_found_by_name_and_not_by_place(weights: Callable[..., Path]):
    text = "Gold rises as the dollar falls"
    first, second = (
        open_sentiment(weights(labels)).score([text])[0] for labels in (FINBERT, ("Negative", "POSITIVE", "neutral"))
    )
    assert second == pytest.approx(-first, abs=1e-5)


def test_spanish_goes_to_the_words(weights: Callable[..., Path]):
    texts = ["El paro baja en los bancos", "Gold rises as the dollar falls"]
    mixed, words = open_sentiment(weights(FINBERT)).score(texts), WordSentiment().score(texts)
    assert mixed[0] == words[0] and mixed[1] != words[1]


def test_nothing_is_loaded_before_it_is_needed_and_then_once(
    weights: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    model = open_sentiment(weights(FINBERT))
    assert isinstance(model, FinBert) and model._pipeline is None
    model.score(["El paro baja", ""])
    assert model._pipeline is None
    opened: list[int] = []
    real = FinBert._open
    monkeypatch.setattr(FinBert, "_open", lambda self: opened.append(1) or real(self))
    with ThreadPoolExecutor(4) as threads:
        scores = [*threads.map(lambda _: model.score(["Gold falls"])[0], range(4))]
    assert opened == [1] and len({round(each, 5) for each in scores}) == 1


def test_a_folder_without_a_model(tmp_path: Path, weights: Callable[..., Path]):
    with pytest.raises(NotFoundError, match=r"config\.json"):
        open_sentiment(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_sentiment(tmp_path).score(["Gold falls"])
    with pytest.raises(ModelError, match="labels positive and negative, has label_0, label_1"):
        open_sentiment(weights(("LABEL_0", "LABEL_1"))).score(["Gold falls"])


# --- moods, and what it all comes to ---


@pytest.fixture
def vendors() -> Iterator[tuple[FakeNews, FakeFear, FakeForums]]:
    """Yield running servers."""
    titles = ("Bitcoin rallies after inflows", "Apple beats estimates", "Bitcoin plunges amid hack")
    news = FakeNews([article(title, minute, description="") for minute, title in enumerate(titles)])
    with news.running(), FakeFear().running() as fear, FakeForums().running() as forums:
        yield news, fear, forums


def runtime_of(folder: Path, vendors: Any, **more: Any) -> Any:
    """Return a runtime that asks those servers."""
    configure_logging("DEBUG")
    news, fear, forums = vendors
    told = {"newsapi_url": news.url, "newsapi_api_key": KEY, "fear_greed_url": fear.url, "mentions_url": forums.url}
    return runtime_for(folder, **told | more)


def test_what_it_all_comes_to(tmp_path: Path, vendors: Any):
    with using(runtime_of(tmp_path, vendors)):
        said = ask("get_sentiment", symbol="BTC/USDT")
    news = WordSentiment().score(
        ["Bitcoin rallies after inflows", "Apple beats estimates", "Bitcoin plunges amid hack"]
    )
    mean = sum(news) / 3
    assert said["sources"] == [
        {"name": "news", "score": pytest.approx(mean, abs=2e-3), "weight": 0.7},
        {"name": "fear_greed", "score": -0.46, "weight": 0.3},
    ]
    assert said["score"] == pytest.approx(0.7 * mean - 0.3 * 0.46, abs=3e-3) and said["label"] == sentiment_label(
        said["score"]
    )
    assert (said["fear_greed"]["value"], said["fear_greed"]["label"]) == (27, "Fear")
    assert said["fear_greed"]["time"] == "2026-11-27T00:00:00Z" and said["headlines"] == 3 and said["notes"] == []
    assert (said["mentions"]["value"], said["mentions"]["score"]) == (210, None), "no direction, no weight"
    assert [vendor.requests[0].path for vendor in vendors] == [
        "/v2/everything",
        "/fng/",
        "/api/v1.0/filter/all-crypto/page/1",
    ]


@pytest.mark.parametrize(("symbol", "counted"), [("AAPL", True), ("EURUSD", False), ("XAUUSD", False), ("SPX", False)])
def test_the_index_says_nothing_of_anything_but_crypto(symbol: str, counted: bool, tmp_path: Path, vendors: Any):
    with using(runtime_of(tmp_path, vendors)):
        said = get_sentiment(symbol)
    assert said.fear_greed is None and [each.weight for each in said.sources] == [1] and not vendors[1].requests
    assert (said.mentions is not None) is counted and bool(vendors[2].requests) is counted


def test_a_vendor_that_fails_is_named_and_left_out(tmp_path: Path, vendors: Any, heard: Callable[[], str]):
    vendors[0].faults.extend([html(503)] * 2)
    with using(runtime_of(tmp_path, vendors)):
        said = get_sentiment("BTCUSDT")
        vendors[1].faults.extend([cut] * 2)
    assert [each.name for each in said.sources] == ["fear_greed"] and said.sources[0].weight == 1
    assert said.notes[0].startswith("news: newsapi did not answer") and "hunter2" not in str(said) + heard()


def test_without_a_key_there_is_still_the_index(tmp_path: Path, vendors: Any):
    with using(runtime_of(tmp_path, vendors, newsapi_api_key="")):
        said = ask("get_sentiment", symbol="BTCUSDT")
        refused = ask("get_sentiment", symbol="EURUSD")
    assert [each["name"] for each in said["sources"]] == ["fear_greed"] and "NEWSAPI_API_KEY" in said["notes"][0]
    assert refused["error"] == "NOT_CONFIGURED" and not vendors[0].requests


def test_when_nobody_answers_the_news_say_why(tmp_path: Path, vendors: Any):
    for vendor in vendors:
        vendor.faults.extend([html(500)] * 2)
    with using(runtime_of(tmp_path, vendors)):
        said = ask("get_sentiment", symbol="BTCUSDT")
    assert said["error"] == "DATA_INVALID" and "newsapi" in said["message"]


def test_no_headline_and_no_index_is_no_sentiment(tmp_path: Path, vendors: Any):
    vendors[0].articles = []
    with using(runtime_of(tmp_path, vendors)):
        crypto, euro = ask("get_sentiment", symbol="BTCUSDT"), ask("get_sentiment", symbol="EURUSD")
    assert [each["name"] for each in crypto["sources"]] == ["fear_greed"] and "no headline" in crypto["notes"][0]
    assert euro["error"] == "NOT_FOUND" and "no headline" in euro["message"]


@pytest.mark.parametrize("value", ["-1", "101", "nan", "much", None, {}])
def test_an_index_out_of_bounds_is_no_reading(value: Any, tmp_path: Path, vendors: Any):
    vendors[1].value = value
    with using(runtime_of(tmp_path, vendors)):
        said = get_sentiment("BTCUSDT")
    assert [each.name for each in said.sources] == ["news"] and "unknown form" in said.notes[0]


@pytest.mark.parametrize(
    "body",
    [{"data": [], "metadata": {"error": "Maintenance"}}, {"data": None}, {}, {"data": [{"value": "5"}]}],
    ids=str,
)
def test_an_index_without_a_reading(body: Any, tmp_path: Path, vendors: Any):
    vendors[1].faults.append(reply(200, json.dumps(body).encode()))
    with using(runtime_of(tmp_path, vendors)):
        said = get_sentiment("BTCUSDT")
    assert said.fear_greed is None and said.notes[0].startswith("fear_greed: ")


def test_readings_are_kept_for_an_hour(tmp_path: Path, vendors: Any):
    with using(runtime_of(tmp_path, vendors)):
        for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT"):
            get_sentiment(symbol)
    assert [len(vendor.requests) for vendor in vendors] == [2, 1, 1]


def test_hung_vendors_are_waited_for_together(tmp_path: Path, vendors: Any):
    for vendor in vendors:
        vendor.faults.extend([hang(1.5)] * 2)
    begin = time.monotonic()
    with using(runtime_of(tmp_path, vendors)):
        said = ask("get_sentiment", symbol="BTCUSDT")
    assert "error" in said and time.monotonic() - begin < 4


def test_nobody_is_asked_who_has_no_address(tmp_path: Path, vendors: Any):
    with using(runtime_of(tmp_path, vendors, fear_greed_url="", mentions_url="")):
        said = get_sentiment("BTCUSDT")
    assert [each.name for each in said.sources] == ["news"] and not vendors[1].requests and not vendors[2].requests
