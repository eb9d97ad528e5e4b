"""What every reader of headlines keeps to."""

import pytest

from orbiquant.llm.sentiment import sentiment_label
from orbiquant.ports import SentimentModel

ODD = ("", " ", "\x00", "🚀" * 5_000, "a" * 100_000, "no " * 20_000, "<script>", "%s {} \\", "\u202eabc", "١٢٣", "的")


class SentimentModelContract:
    """Whoever inherits it gives a fixture `model`."""

    def test_it_is_one(self, model: SentimentModel):
        assert isinstance(model, SentimentModel) and model.name

    def test_nothing_is_nothing(self, model: SentimentModel):
        assert model.score([]) == [] and model.score(["", "  "]) == [0, 0]

    def test_one_number_a_text_in_bounds_and_the_same_again(self, model: SentimentModel):
        texts = [*ODD, "Gold falls as the dollar rises", "El oro cae"]
        scores = model.score(texts)
        assert len(scores) == len(texts) and all(isinstance(each, float | int) and -1 <= each <= 1 for each in scores)
        assert model.score(texts) == scores and {sentiment_label(each) for each in scores} <= {
            "positive",
            "neutral",
            "negative",
        }

    def test_the_neighbours_do_not_matter(self, model: SentimentModel):
        texts = ["Profits of the bank fall", "El paro baja", "Losses of the bank fall", ""]
        together, apart = model.score(texts), [model.score([text])[0] for text in texts]
        assert together == pytest.approx(apart, abs=1e-5)
