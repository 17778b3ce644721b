"""Searches in unit vectors with NumPy, FAISS and hnswlib: exact ones, and approximate ones tuned to a recall.

    peer_search.py exact  --vectors V.npy --queries W.npy --answers A.tsv [--half] [-k 10] [--threads 2] [--rounds 3]
        checks the answers that `benchsearch search` gave to the queries against an exact search, and times searches of one
        query after another: FAISS's flat index, NumPy's product. One line of JSON.
    peer_search.py shards --vectors V.npy --queries W.npy [--half] [-k 10] [--threads 2] [--rounds 3]
        times FAISS's flat index split into a shard a thread. Wants OMP_NUM_THREADS=1: a shard's thread takes its number of threads from
        there alone, and would open a team of its own. One line of JSON.
    peer_search.py tune   --vectors V.npy --queries Q.npy --indexes DIR [-k 10] [--recall 0.95]
        builds indexes into DIR (those that are there already stay), with the exact answers, and finds the least width of each that
        reaches the recall.
    peer_search.py approx --queries Q.npy --indexes DIR [-k 10] [--recall 0.95] [--threads 2]
        times these indexes at the widths found for that recall: one line of JSON for each.
    peer_search.py recall --queries Q.npy --indexes DIR --answers A.tsv [-k 10]
        the recall of `benchsearch search`. One line of JSON.

Vectors are normalized here, as the database does. Item i of V.npy has the id i + 1.
"""
import argparse
import bisect
import json
import os
import sys
import time
from importlib import metadata

import faiss
import numpy as np

try:
    import hnswlib
except ImportError:
    hnswlib = None

WIDTHS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 768, 1024]
# Graphs of two degrees; lists with exact vectors; lists with codes of 8 bits or 4 whose best are scored again: the first is as ours are.
KINDS = ["hnswlib M=16", "hnswlib M=32", "faiss HNSW16,Flat", "faiss IVF{lists},Flat", "faiss IVF{twice},Flat", "faiss IVF{twice},SQ8,RFlat refine=2",
         "faiss IVF{lists},PQ64x4fs,RFlat refine=4", "faiss IVF{lists},PQ64x4fs,RFlat refine=16"]
PASSES = 3  # of all queries; the median counts


def unit(path):
    x = np.ascontiguousarray(np.load(path), dtype=np.float32)
    faiss.normalize_L2(x)
    return x


def read_answers(path, count, k):
    """ids [count, k], -1 where there is none, and scores."""
    ids = np.full((count, k), -1, np.int64)
    scores = np.full((count, k), -np.inf)
    with open(path) as f:
        for line in f:
            q, rank, i, score = line.split("\t")
            ids[int(q), int(rank) - 1] = int(i) - 1
            scores[int(q), int(rank) - 1] = float(score)
    return ids, scores


def single(index, queries, k, parameters=None):
    """Seconds a query, one after another. The call under FAISS's Python wrapper: its checks are not what is compared."""
    scores, ids = np.empty((1, k), np.float32), np.empty((1, k), np.int64)
    rows = [faiss.swig_ptr(queries[i : i + 1]) for i in range(len(queries))]
    s, d = faiss.swig_ptr(scores), faiss.swig_ptr(ids)
    call = getattr(index, "search_c", None)
    start = time.perf_counter()
    if call:
        for row in rows:
            call(1, row, k, s, d)
    else:
        for i in range(len(queries)):
            index.search(queries[i : i + 1], k)
    return (time.perf_counter() - start) / len(queries)


def numpy_search(x, w, k):
    scores = x @ w
    best = np.argpartition(-scores, k - 1)[:k]
    return best[np.argsort(-scores[best], kind="stable")]


def exact_index(a, x):
    if a.half:
        index = faiss.IndexScalarQuantizer(x.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexFlatIP(x.shape[1])
    index.add(np.ascontiguousarray(x))
    return index


def exact(a):
    x, w = unit(a.vectors), unit(a.queries)
    k = min(a.k, len(x))
    flat = faiss.IndexFlatIP(x.shape[1])
    flat.add(x)
    scores, want = flat.search(w, k)
    got, _ = read_answers(a.answers, len(w), k)
    # Two items may swap places where their scores differ by less than single precision tells.
    wrong = 0
    for q in range(len(w)):
        mine = np.where(got[q] >= 0, x[got[q]].astype(np.float64) @ w[q].astype(np.float64), -np.inf)
        best = np.sort(x[want[q]].astype(np.float64) @ w[q].astype(np.float64))[::-1]
        wrong += len(set(got[q])) != k or bool(np.any(mine < best - 2e-6))
    out = {"queries": len(w), "wrong": wrong, "same_ids": int(sum(len(set(p) & set(q)) for p, q in zip(got, want))), "ids": len(w) * k}
    if a.half:
        flat = exact_index(a, x)
    faiss.omp_set_num_threads(1)  # one query has nothing for a second thread, which would only spin
    times = {"faiss_seconds": [], "numpy_seconds": []}
    for _ in range(a.rounds):
        times["faiss_seconds"].append(single(flat, w, k))
        if not a.half:
            start = time.perf_counter()
            for q in w:
                numpy_search(x, q, k)
            times["numpy_seconds"].append((time.perf_counter() - start) / len(w))
    out.update({name: float(np.median(t)) for name, t in times.items() if t})
    print(json.dumps(out))


def shards(a):
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("shards want OMP_NUM_THREADS=1")
    x, w = unit(a.vectors), unit(a.queries)
    index = faiss.IndexShards(x.shape[1], True, False)
    parts = [exact_index(a, part) for part in np.array_split(x, a.threads)]
    for part in parts:
        index.add_shard(part)
    times = [single(index, w, min(a.k, len(x))) for _ in range(a.rounds)]
    print(json.dumps({"shards_seconds": float(np.median(times))}))


def recall(got, want):
    return float(np.mean([len(set(g) & set(w)) for g, w in zip(got, want)])) / want.shape[1]


def kinds(count):
    lists = 2 ** int(np.clip(np.round(np.log2(2 * np.sqrt(max(count, 1)))), 2, 16))
    for kind in KINDS:
        if kind.startswith("hnswlib") and hnswlib is None:
            continue
        yield kind.format(lists=lists, twice=2 * lists)


class Approximate:
    """One index and how wide it searches: hnswlib's and FAISS's behind the same three calls."""

    def __init__(self, kind, folder, dim):
        self.kind, self.dim = kind, dim
        self.lib, self.spec, *refine = kind.split(" ")
        self.refine = int(refine[0].split("=")[1]) if refine else 0  # candidates for each answer that are scored again
        self.path = os.path.join(folder, f"{self.lib}-{self.spec}".replace(",", "-").replace("=", ""))
        self.index = None

    def built(self):
        return os.path.exists(self.path)

    def build(self, x):
        part = self.path + ".part"
        if self.lib == "hnswlib":
            index = hnswlib.Index("ip", self.dim)
            index.init_index(len(x), ef_construction=200, M=int(self.spec[2:]))
            index.add_items(x)
            index.save_index(part)
        else:
            index = faiss.index_factory(self.dim, self.spec, faiss.METRIC_INNER_PRODUCT)
            if "HNSW" in self.spec:
                index.hnsw.efConstruction = 200
            if not index.is_trained:
                index.train(x[:: max(1, len(x) // (64 * faiss.extract_index_ivf(index).nlist))])
            index.add(x)
            faiss.write_index(index, part)
        os.replace(part, self.path)

    def load(self, count):
        if self.lib == "hnswlib":
            self.index = hnswlib.Index("ip", self.dim)
            self.index.load_index(self.path, max_elements=count)
        else:
            self.index = faiss.read_index(self.path)
            if self.refine:
                self.index.k_factor = self.refine

    def widen(self, width):
        if self.lib == "hnswlib":
            self.index.set_ef(width)
        elif "HNSW" in self.spec:
            self.index.hnsw.efSearch = width
        else:
            faiss.extract_index_ivf(self.index).nprobe = width

    def reaches(self, width, queries, want, a):
        self.widen(width)
        return recall(self.batch(queries, want.shape[1], a.threads), want) >= a.recall

    def batch(self, queries, k, threads):
        if self.lib == "hnswlib":
            return self.index.knn_query(queries, k=k, num_threads=threads)[0]
        faiss.omp_set_num_threads(threads)
        return self.index.search(queries, k)[1]

    def one_by_one(self, queries, k, threads):
        """The least of what one thread and, where the library can, several threads a query give."""
        if self.lib == "hnswlib":  # one query after another inside the call, on one thread
            start = time.perf_counter()
            self.index.knn_query(queries, k=k, num_threads=1)
            return (time.perf_counter() - start) / len(queries)
        faiss.omp_set_num_threads(1)
        least = single(self.index, queries, k)
        if "IVF" in self.spec and threads > 1:
            faiss.omp_set_num_threads(threads)
            ivf = faiss.extract_index_ivf(self.index)
            for mode in (0, 1):
                ivf.parallel_mode = mode
                least = min(least, single(self.index, queries, k))
            ivf.parallel_mode = 0
        return least


def tuned_file(a):
    return os.path.join(a.indexes, f"tuned-{a.recall:g}.json")


def tune(a):
    x, q = unit(a.vectors), unit(a.queries)
    k = min(a.k, len(x))
    faiss.omp_set_num_threads(a.threads)
    flat = faiss.IndexFlatIP(x.shape[1])
    flat.add(x)
    want = flat.search(q, k)[1]
    np.save(os.path.join(a.indexes, "truth.npy"), want)
    tuned = []
    for kind in kinds(len(x)):
        index = Approximate(kind, a.indexes, x.shape[1])
        if not index.built():
            start = time.perf_counter()
            index.build(x)
            print(f"bench: built {kind} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
        index.load(len(x))
        widths = [w for w in WIDTHS if w >= k or "IVF" in kind]
        if index.reaches(widths[-1], q, want, a):
            # The least that does: recall grows with the width.
            width = widths[bisect.bisect_left(widths, True, key=lambda w: index.reaches(w, q, want, a))]
            tuned.append({"kind": kind, "width": width, "count": len(x)})
        else:
            print(f"bench: {kind} does not reach a recall of {a.recall}", file=sys.stderr)
    if not tuned:
        raise SystemExit(f"no index reaches a recall of {a.recall}")
    with open(tuned_file(a), "w") as f:
        json.dump(tuned, f)


def approx(a):
    q = unit(a.queries)
    want = np.load(os.path.join(a.indexes, "truth.npy"))
    with open(tuned_file(a)) as f:
        tuned = json.load(f)
    for t in tuned:
        if t["kind"].startswith("hnswlib") and hnswlib is None:
            continue
        index = Approximate(t["kind"], a.indexes, q.shape[1])
        index.load(t["count"])
        index.widen(t["width"])
        got = index.batch(q, want.shape[1], a.threads)  # also warms up
        batch, one = [], []
        for _ in range(PASSES):
            start = time.perf_counter()
            index.batch(q, want.shape[1], a.threads)
            batch.append((time.perf_counter() - start) / len(q))
            one.append(index.one_by_one(q, want.shape[1], a.threads))
        print(json.dumps({"kind": t["kind"], "width": t["width"], "recall": round(recall(got, want), 4),
                          "batch_seconds": float(np.median(batch)), "seconds": float(np.median(one))}), flush=True)


def ours(a):
    want = np.load(os.path.join(a.indexes, "truth.npy"))
    got, _ = read_answers(a.answers, len(want), want.shape[1])
    print(json.dumps({"recall": round(recall(got, want), 4)}))


def main():
    p = argparse.ArgumentParser()
    versions = f"faiss {faiss.__version__} hnswlib {metadata.version('hnswlib') if hnswlib else 'none'}"
    p.add_argument("--version", action="version", version=versions)
    p.add_argument("mode", choices=["exact", "shards", "tune", "approx", "recall"])
    p.add_argument("--vectors")
    p.add_argument("--queries", required=True)
    p.add_argument("--answers")
    p.add_argument("--indexes")
    p.add_argument("--half", action="store_true")
    p.add_argument("-k", type=int, default=10)
    p.add_argument("--recall", type=float, default=0.95)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    faiss.omp_set_num_threads(a.threads)
    {"exact": exact, "shards": shards, "tune": tune, "approx": approx, "recall": ours}[a.mode](a)


if __name__ == "__main__":
    main()
