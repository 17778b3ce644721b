"""Table 1's protocol in NumPy: from stored vectors and CelebA's two text files to precision at 1, 5, 10 and 20.

    peer_table1.py --make DIR                        draws the data by seed: vectors.npy, paths.txt and the two files
    peer_table1.py [--exact] DIR                     prints the table and the seconds of each part as JSON
    peer_table1.py --compare OURS.json THEIRS.json   how many figures agree; exit code 1 where one differs

Written for speed: no loop over images but for looking up names, single precision, one product for all scores, a partial
sort. --exact does sums and scores in double precision instead. The data has CelebA's sizes and its attributes' shares.
"""
import argparse
import json
import sys
import time

import numpy as np

KS = (1, 5, 10, 20)
TOP = max(KS)
PARTS = (162770, 19867, 19962)  # training, validation, test
PAIRS = 487
DIM = 128
# Shares of CelebA's images in thousandths.
SHARES = {
    "5_o_Clock_Shadow": 111, "Arched_Eyebrows": 267, "Attractive": 513, "Bags_Under_Eyes": 205, "Bald": 22, "Bangs": 152,
    "Big_Lips": 241, "Big_Nose": 235, "Black_Hair": 239, "Blond_Hair": 148, "Blurry": 51, "Brown_Hair": 205,
    "Bushy_Eyebrows": 142, "Chubby": 58, "Double_Chin": 47, "Eyeglasses": 65, "Goatee": 63, "Gray_Hair": 42,
    "Heavy_Makeup": 387, "High_Cheekbones": 455, "Male": 417, "Mouth_Slightly_Open": 483, "Mustache": 42,
    "Narrow_Eyes": 115, "No_Beard": 835, "Oval_Face": 284, "Pale_Skin": 43, "Pointy_Nose": 277, "Receding_Hairline": 80,
    "Rosy_Cheeks": 66, "Sideburns": 57, "Smiling": 482, "Straight_Hair": 208, "Wavy_Hair": 320, "Wearing_Earrings": 189,
    "Wearing_Hat": 48, "Wearing_Lipstick": 472, "Wearing_Necklace": 123, "Wearing_Necktie": 73, "Young": 774}


def pairs_that_count(test):
    both = test.T.astype(np.float32) @ test.astype(np.float32)
    a, b = np.nonzero(np.triu((both > 0.01 * len(test)) & (both < 0.5 * len(test)), 1))
    return a, b, both


# ---- the data ----

def draw_attributes(rng, factor, own, strength):
    """Each image has what one factor, common to all attributes, and chance give it: the shares are met exactly."""
    x = strength * factor * rng.standard_normal((1, len(SHARES)), dtype=np.float32) + own
    limit = [np.quantile(x[:, i], 1 - share / 1000) for i, share in enumerate(SHARES.values())]
    return x, x > np.array(limit, np.float32)


def make(folder):
    total, seed = sum(PARTS), 1
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((total, 1), dtype=np.float32)
    own = rng.standard_normal((total, len(SHARES)), dtype=np.float32)
    best = None
    for step in range(60):  # how much attributes go together decides how many pairs count
        x, has = draw_attributes(np.random.default_rng(seed + 1), factor, own, 2.3 + 0.001 * step)
        off = abs(len(pairs_that_count(has[-PARTS[2]:])[0]) - PAIRS)
        if best is None or off < best[0]:
            best = (off, x, has)
        if off == 0:
            break
    _, x, has = best
    vectors = x @ rng.standard_normal((len(SHARES), DIM), dtype=np.float32) * 0.3
    vectors += rng.standard_normal((total, DIM), dtype=np.float32) * 4
    names = [f"{i + 1:06d}.jpg" for i in range(total)]
    stored = np.r_[0:PARTS[0], PARTS[0] + PARTS[1]:total]
    np.save(f"{folder}/vectors.npy", vectors[stored])
    with open(f"{folder}/paths.txt", "w") as f:
        f.writelines(names[i] + "\n" for i in stored)
    with open(f"{folder}/list_eval_partition.txt", "w") as f:
        f.writelines(f"{n} {p}\n" for n, p in zip(names, np.repeat((0, 1, 2), PARTS)))
    with open(f"{folder}/list_attr_celeba.txt", "w") as f:
        f.write(f"{total}\n{' '.join(SHARES)}\n")
        f.writelines(n + "".join("  1" if v else " -1" for v in row) + "\n" for n, row in zip(names, has.tolist()))


# ---- the protocol ----

def words(path, head):
    """The words of a text file behind `head` lines: bytes, where each begins, where the line ends are; and the head."""
    with open(path, "rb") as f:
        data = f.read()
    *lines, body = data.split(b"\n", head)
    text = np.frombuffer(body, np.uint8)
    inside = text > 32
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    return lines, body, text, np.flatnonzero(begins)


def read_texts(folder):
    lines, body, text, begins = words(f"{folder}/list_attr_celeba.txt", 2)
    begins = begins.reshape(int(lines[0]), -1)
    has = text[begins[:, 1:]] == ord("1")
    rows = {body[i:j].rstrip().decode(): n for n, (i, j) in enumerate(zip(begins[:, 0].tolist(), begins[:, 1].tolist()))}
    _, body, text, begins = words(f"{folder}/list_eval_partition.txt", 0)
    begins = begins.reshape(-1, 2)
    part = text[begins[:, 1]] - ord("0")
    parts = {body[i:j].rstrip().decode(): p for i, j, p in zip(begins[:, 0].tolist(), begins[:, 1].tolist(), part.tolist())}
    return lines[1].decode().split(), has, rows, parts


def load(folder):
    names, has, rows, parts = read_texts(folder)
    with open(f"{folder}/paths.txt") as f:
        paths = f.read().splitlines()
    has = has[np.array([rows[p] for p in paths])]
    part = np.array([parts[p] for p in paths], np.int8)
    return names, np.load(f"{folder}/vectors.npy"), has, part


def query_sums(has, unit, a, b, chunk=4096):
    """[attributes and pairs, dim]: products of 0/1 columns with the vectors, a chunk of images at a time: so both stay in
    the cache. Measured to be faster than one large product, than picking each set's rows and than other sizes."""
    columns = np.ascontiguousarray(has.T)
    first, second = np.r_[0:len(columns), a], np.r_[0:len(columns), b]
    sums = np.zeros((len(first), unit.shape[1]), unit.dtype)
    for i in range(0, len(unit), chunk):
        block = columns[:, i:i + chunk]
        sums += (block[first] & block[second]).astype(unit.dtype) @ unit[i:i + chunk]
    return first, second, sums


def best_rows(scores):
    """The first TOP columns of each row, best first."""
    top = np.argpartition(scores, scores.shape[1] - TOP, axis=1)[:, -TOP:]
    found = np.take_along_axis(scores, top, 1)
    return np.take_along_axis(top, np.argsort(-found, axis=1, kind="stable"), 1)


def table(names, vectors, has, part, exact, lap):
    if exact:
        vectors = vectors.astype(np.float64)
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    query, test = vectors[part == 0], vectors[part == 2]
    has_query, has_test = has[part == 0], has[part == 2]
    lap("normalise")
    a, b, both = pairs_that_count(has_test)
    first, second, sums = query_sums(has_query, query, a, b)
    lap("sums")
    top = best_rows(sums @ test.T)
    lap("scores")
    hits = np.cumsum(has_test[top, first[:, None]] & has_test[top, second[:, None]], axis=1)
    precision = np.stack([hits[:, k - 1] / k for k in KS], 1)
    rows = [{"attributes": [names[i]] + ([names[j]] if i != j else []), "precision": p}
            for i, j, p in zip(first.tolist(), second.tolist(), precision.tolist())]
    singles = len(names)
    lap("count")
    return {"single": {"sets": singles, "precision": precision[:singles].mean(0).tolist(), "rows": rows[:singles]},
            "double": {"sets": len(a), "precision": precision[singles:].mean(0).tolist(), "rows": rows[singles:]}}


def run(folder, exact):
    laps, clock = {}, [time.perf_counter()]

    def lap(name):
        laps[name] = time.perf_counter() - clock[-1]
        clock.append(time.perf_counter())

    data = load(folder)
    lap("load")
    result = table(*data, exact, lap)
    result["seconds"] = clock[-1] - clock[0]
    result["seconds_from_arrays"] = clock[-1] - clock[1]
    result["laps"] = laps
    result["numpy"] = np.__version__
    print(json.dumps(result))


def compare(ours, theirs):
    """Both tables, row by row: figures that differ, all figures."""
    with open(ours) as f, open(theirs) as g:
        x, y = json.load(f), json.load(g)
    figures = differ = 0
    for half in ("single", "double"):
        if [r["attributes"] for r in x[half]["rows"]] != [r["attributes"] for r in y[half]["rows"]]:
            raise SystemExit(f"the {half} rows are not the same attributes")
        p, q = (np.array([r["precision"] for r in t[half]["rows"]]) for t in (x, y))
        figures += p.size
        differ += int((abs(p - q) > 1e-9).sum())
        if not differ and not np.allclose(x[half]["precision"], y[half]["precision"], 1e-12):
            raise SystemExit(f"the {half} means differ")
    print(f"{figures - differ} of {figures} figures agree, {x['single']['sets']} attributes, {x['double']['sets']} pairs")
    return differ > 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--make", action="store_true")
    p.add_argument("--exact", action="store_true")
    p.add_argument("--compare", action="store_true")
    p.add_argument("paths", nargs="+")
    a = p.parse_args()
    if a.compare:
        sys.exit(compare(*a.paths))
    if a.make:
        make(a.paths[0])
    else:
        run(a.paths[0], a.exact)


if __name__ == "__main__":
    main()
