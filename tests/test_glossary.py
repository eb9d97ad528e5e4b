"""The glossary says what the code does: sources, names and numbers are looked up, texts are in their language."""

import configparser
import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from orbiquant.features.config import IctConfig, PhaseConfig
from orbiquant.llm.courses import read_courses
from orbiquant.llm.glossary import Term, fold_text, read_glossary
from orbiquant.models.config import Phase2Config

ROOT = Path(__file__).parent.parent
TERMS = list(read_glossary().terms.values())
LEVELS = ("beginner", "intermediate", "advanced")
ASKED_FOR = (
    "accumulation, manipulation, distribution, liquidity sweep, inducement, order block, fair value gap, "
    "mitigation, BOS, CHOCH, displacement, premium, discount, OTE, killzone, dealing range, swing point, RSI, "
    "MACD, Bollinger, ATR, VWAP, OBV, ADX, stochastic, EMA, R multiple, expectancy, profit factor, drawdown, "
    "Sharpe, Sortino, Calmar, deflated Sharpe, PBO, purged CV, embargo, walk-forward, triple barrier, meta- "
    "labelling, calibration, conformal coverage, Kelly, position sizing, slippage, spread, high-water mark, NAV, "
    "kill switch, acumulación, barrido de liquidez, bloque de órdenes, hueco de valor justo, sobreajuste, valor "
    "liquidativo, deslizamiento, apalancamiento"
)


def texts(term: Term, language: str) -> list[str]:
    """Return the three texts of a term in a language."""
    return [getattr(getattr(term, language), level) for level in LEVELS]


def prose(text: str) -> str:
    """Return a text without what is code."""
    return re.sub(r"`[^`]*`", "", text)


def test_every_term_that_people_ask_for_is_there():
    assert len(TERMS) >= 120
    assert [name for name in ASKED_FOR.split(", ") if read_glossary().find(name) is None] == []


@pytest.mark.parametrize("language", ["en", "es"])
def test_three_levels_are_three_explanations(language: str):
    for term in TERMS:
        for one, other in combinations(texts(term, language), 2):
            mine, theirs = (set(fold_text(prose(text)).split()) for text in (one, other))
            assert len(mine & theirs) < 0.5 * len(mine | theirs), (term.id, one, other)
        beginner, _, advanced = texts(term, language)
        assert "`" not in beginner, term.id
        assert re.search(r"`|[=≥√Σ±×/]|\d", advanced), term.id


@pytest.mark.parametrize(
    ("language", "own", "foreign"), [("en", "the a of is to", "que el los"), ("es", "el la de es un en", "the of and")]
)
def test_a_text_is_in_its_language(language: str, own: str, foreign: str):
    for term in TERMS:
        words = prose(" ".join(texts(term, language))).casefold().split()
        assert sum(word in own.split() for word in words) > 4 * sum(word in foreign.split() for word in words), term.id
    accents = sum(bool(re.search("[áéíóúñ]", " ".join(texts(term, language)))) for term in TERMS)
    assert accents == len(TERMS) if language == "es" else accents < len(TERMS) / 10


def test_spanish_numbers_have_a_comma():
    for term in TERMS:
        for text in texts(term, "es"):
            assert not re.search(r"(?<![\d.\w])\d+\.\d{1,2}(?![\d.\w])", prose(text)), (term.id, text)


def test_languages_tell_the_same_figures():
    """The advanced texts of both languages name the same code and nearly the same numbers."""
    for term in TERMS:
        english, spanish = texts(term, "en")[2], texts(term, "es")[2]
        assert set(re.findall(r"`([^`]+)`", english)) == set(re.findall(r"`([^`]+)`", spanish)), term.id


def test_sources_of_ours_exist_with_their_headings():
    for term in TERMS:
        for source in term.sources:
            if source.startswith("nbs/"):
                page, _, heading = source.partition("#")
                cells = json.loads((ROOT / page).read_text(encoding="utf-8"))["cells"]
                lines = [
                    line.rstrip("\n") for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"]
                ]
                assert not heading or any(re.fullmatch(rf"#+ {re.escape(heading)}", line) for line in lines), source


def test_code_that_is_named_exists():
    rooms = {
        path.stem for path in (ROOT / "orbiquant").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    named = {
        (term.id, code)
        for term in TERMS
        for text in texts(term, "en")
        for code in re.findall(r"`([a-z][\w.]*)(?:\([^`]*)?`", text)
    }
    checked = 0
    for id_, code in named:
        parts = code.split(".")
        if parts[0] not in rooms or len(parts) == 1:
            continue
        checked += 1
        module = [
            parts[:count]
            for count in range(len(parts), 0, -1)
            if (ROOT / "orbiquant").joinpath(*parts[:count]).with_suffix(".py").exists()
        ]
        package = (ROOT / "orbiquant").joinpath(*parts).is_dir()
        assert module or package, (id_, code)
        for name in parts[len(module[0]) if module else len(parts) :]:
            said = (ROOT / "orbiquant").joinpath(*module[0]).with_suffix(".py").read_text(encoding="utf-8")
            assert re.search(rf"\b{name}\b", said), (id_, code)
    assert checked > 100


def test_numbers_of_settings_are_those_of_the_code():
    """`name` = number is looked up in the configuration classes and the packaged settings."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    known: dict[str, set[float]] = {}
    for config in (IctConfig(), PhaseConfig(), Phase2Config()):
        for name, value in config:
            if isinstance(value, int | float):
                known.setdefault(name, set()).add(float(value))
    for section in parser.values():
        for name, written in section.items():
            if re.fullmatch(r"\d+(\.\d+)?", written.split(",")[0].strip()):
                known.setdefault(name, set()).add(float(written.split(",")[0]))
    checked = 0
    for term in TERMS:
        for language in ("en", "es"):
            for name, number in re.findall(
                r"`([a-z_]+)` = (\d++(?:[.,]\d++)?)(?! ?%)", " ".join(texts(term, language))
            ):
                if name in known:
                    checked += 1
                    assert float(number.replace(",", ".")) in known[name], (term.id, name, number, known[name])
    assert checked > 60


def test_a_name_means_one_term():
    for language in ("en", "es"):
        owners: dict[str, str] = {}
        for term in TERMS:
            for name in {fold_text(name) for name in getattr(term, language).names}:
                assert owners.setdefault(name, term.id) == term.id, (name, owners[name], term.id)


def test_relations_lead_somewhere_else():
    for term in TERMS:
        assert term.related and term.id not in term.related, term.id
        assert set(term.related) <= set(read_glossary().terms), term.id


def test_courses_are_chapters_of_this_repository():
    for course in read_courses():
        assert (ROOT / course.url).is_file(), course.url
        assert re.search("[áéíóúñ]|[a-z]", course.why_es) and course.why != course.why_es
    topics = {topic for course in read_courses() for topic in course.topics}
    ids = {topic for topic in topics if re.fullmatch(r"[a-z0-9_]+", topic)}
    assert len(ids & set(read_glossary().terms)) > 90
