"""How alike texts are: BLEU distances and clusters, for the repetition penalty (section 3.1). B texts, F features."""

import warnings
from collections import Counter

import numpy as np
import torch


def ngram_overlap(words, n):
    """Sum over n-grams g of min(count_i(g), count_j(g)), BLEU's clipped matches, for all pairs of texts -> [B, B]. The
    k-th occurrence of an n-gram in a text is a feature of its own; the sum is then the number of common features."""
    features, rows, columns = {}, [], []
    for b, text in enumerate(words):
        seen = Counter()
        for gram in zip(*(text[i:] for i in range(n))):
            seen[gram] += 1
            rows.append(b)
            columns.append(features.setdefault((gram, seen[gram]), len(features)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch calls its sparse matrices a beta feature
        ones = torch.ones(len(rows), dtype=torch.float64)
        x_BF = torch.sparse_coo_tensor([rows, columns], ones, (len(words), max(1, len(features))))
        return torch.sparse.mm(x_BF, x_BF.T).to_dense().numpy()


def bleu_distances(questions):
    """d_ij = 1 - BLEU(x_i, x_j) -> symmetric [B, B], 0 on the diagonal. BLEU counts n-grams of white-space tokens up to
    n = 4, with x_i (i < j) as hypothesis and x_j as reference. A count of 0 matches is replaced by 0.1 (NLTK's
    smoothing method 1), but two texts without a common word have BLEU 0."""
    words = [q.split() for q in questions]
    length = np.array([len(w) for w in words])
    log_bleu = np.minimum(0, 1 - length[None, :] / np.maximum(length, 1)[:, None])  # the brevity penalty
    for n in (4, 3, 2, 1):
        matches = ngram_overlap(words, n)
        possible = np.maximum(1, length - n + 1)[:, None]
        log_bleu += np.log(np.where(matches > 0, matches, 0.1) / possible) / 4
    bleu = np.where(matches > 0, np.exp(log_bleu), 0)
    upper = np.triu(1 - bleu, 1)
    return upper + upper.T


def average_linkage(distances, threshold):
    """Agglomerative clustering, average linkage: clusters merge while their mean distance is < threshold -> labels [B].
    The method is nearest-neighbour chains (Benzecri, 1982): step from a cluster to its nearest until two are each
    other's nearest, and merge these. All B - 1 merges are made, and the labels follow those below the threshold. Ties
    are broken as SciPy breaks them, since the choice can change the clusters: a chain starts at the first cluster, goes
    back if it can, else to the first of the nearest, and a merged cluster keeps the later of the two indices."""
    D, size, labels = distances.copy(), np.ones(len(distances)), np.arange(len(distances))
    np.fill_diagonal(D, np.inf)  # infinite too: the row and column of a cluster that was merged into another
    chain = []
    for _ in range(len(D) - 1):
        chain = chain or [int(np.flatnonzero(size)[0])]
        while True:
            to_last = D[chain[-1]]
            nearest = int(to_last.argmin())
            if len(chain) > 1 and to_last[chain[-2]] == to_last[nearest]:
                break
            chain.append(nearest)
        a, b = sorted(chain[-2:])
        del chain[-2:]
        if D[a, b] < threshold:
            labels[labels == labels[a]] = labels[b]
        D[b] = D[:, b] = (size[a] * D[a] + size[b] * D[b]) / (size[a] + size[b])
        D[a] = D[:, a] = np.inf
        size[a], size[b] = 0, size[a] + size[b]
    return labels
