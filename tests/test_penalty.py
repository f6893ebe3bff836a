"""The repetition penalty against its slow twin: NLTK's BLEU and scikit-learn's agglomerative clustering."""

import random
import time
import warnings

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from sklearn.cluster import AgglomerativeClustering

from rzero import repetition_penalty
from tasks.similarity import bleu_distances


def slow_distances(questions):
    words, smooth = [q.split() for q in questions], SmoothingFunction().method1
    D = np.zeros((len(words), len(words)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for j in range(len(words)):
            for i in range(j):
                D[i, j] = D[j, i] = 1 - sentence_bleu([words[j]], words[i], smoothing_function=smooth)
    return D


def slow_penalty(questions):
    labels = AgglomerativeClustering(n_clusters=None, metric="precomputed", linkage="average",
                                     distance_threshold=0.5).fit_predict(slow_distances(questions))
    return np.bincount(labels)[labels] / len(labels)


def some_questions(count, seed, vocabulary=30, longest=30):
    """Random texts and, for half of them, an edited copy of an earlier one, so that clusters form."""
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(vocabulary)]
    texts = []
    for _ in range(count):
        text = rng.choices(words, k=rng.randint(0, longest))
        if texts and rng.random() < 0.5:
            text = rng.choice(texts).split()
            for _ in range(rng.randint(0, 1 + len(text) // 5)):
                if text:
                    text[rng.randrange(len(text))] = rng.choice(words)
        texts.append(" ".join(text))
    return texts


@pytest.mark.parametrize("seed", range(6))
def test_equals_nltk_and_scikit_learn(seed):
    questions = some_questions(80, seed, vocabulary=[4, 30, 200][seed % 3])
    np.testing.assert_allclose(bleu_distances(questions), slow_distances(questions), atol=1e-12)
    shares = repetition_penalty(questions)
    np.testing.assert_allclose(shares, slow_penalty(questions), atol=1e-12)
    assert len(set(shares)) > 2


@pytest.mark.parametrize("seed", range(40))
def test_ties_are_broken_as_scipy_does(seed):
    """Short texts of few words have many equal distances, where the order of merges changes the clusters."""
    rng = random.Random(seed)
    questions = [f"What is {rng.randint(1, 3)} + {rng.randint(1, 3)}" + " + 1" * rng.randint(0, 2) for _ in range(24)]
    np.testing.assert_allclose(repetition_penalty(questions), slow_penalty(questions), atol=1e-12)


def test_by_hand():
    """Two equal questions of four words are one cluster of half the batch; BLEU of `a b c d` and `a b c e` is by hand
    (3/4 * 2/3 * 1/2 * 0.1) ^ 1/4 = 0.3976, too far to join them; the last has no word in common with any."""
    questions = ["a b c d", "a b c d", "a b c e", "x y"]
    assert bleu_distances(questions)[0, 2] == pytest.approx(1 - 0.025**0.25)
    assert bleu_distances(questions)[0, 3] == 1
    assert repetition_penalty(questions).tolist() == [0.5, 0.5, 0.25, 0.25]
    assert repetition_penalty(["only one"]).tolist() == [1.0]
    assert repetition_penalty([]).tolist() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["different", "alike"])
def test_two_thousand_questions_take_seconds(kind):
    questions = some_questions(2048, 0, vocabulary=3000, longest=120) if kind == "different" else \
        [f"What is the sum of the first {i % 97} positive integers that leave remainder {i % 7} when divided by 11 ?"
         for i in range(2048)]
    start = time.perf_counter()
    shares = repetition_penalty(questions)
    assert time.perf_counter() - start < 30  # 3 to 6 s on one core
    assert (shares.max() > 0.1) == (kind == "alike")
