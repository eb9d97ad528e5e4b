"""What every `Embedder` promises."""

import numpy as np

from orbiquant.ports import Embedder

TEXTS = ["what is the price of gold", "a cuánto está el oro", "explain photosynthesis to me"]


class EmbedderContract:
    """Subclasses give a fixture `embedder`."""

    def test_it_is_an_embedder(self, embedder: Embedder):
        assert isinstance(embedder, Embedder) and embedder.name

    def test_a_row_a_text_of_length_one(self, embedder: Embedder):
        vectors = embedder.embed(TEXTS)
        assert vectors.shape[0] == len(TEXTS) and vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)

    def test_no_texts_are_no_rows_of_the_same_width(self, embedder: Embedder):
        assert embedder.embed([]).shape == (0, embedder.embed(TEXTS[:1]).shape[1])

    def test_a_text_has_one_vector_in_whichever_company(self, embedder: Embedder):
        together, alone = embedder.embed(TEXTS), np.concatenate([embedder.embed([text]) for text in TEXTS])
        assert np.allclose(together, alone, atol=2e-3)
        assert np.array_equal(embedder.embed(TEXTS), together)

    def test_the_same_question_in_two_languages_is_nearer_than_another(self, embedder: Embedder):
        english, spanish, other = embedder.embed(TEXTS)
        assert english @ spanish > english @ other

    def test_a_passage_is_embedded_too(self, embedder: Embedder):
        question, passage = (
            embedder.embed(["what is a stop loss"]),
            embedder.embed(["a stop loss ends it"], passage=True),
        )
        assert passage.shape == question.shape

    def test_odd_texts_have_finite_vectors(self, embedder: Embedder):
        assert np.isfinite(embedder.embed(["", " ", "🤔" * 50, "\x00", "oro " * 30_000])).all()
