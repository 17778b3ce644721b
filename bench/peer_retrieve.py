"""What `retrieve` does, as a Python program on torch, Pillow and faiss: a whole process, from files to answers.

    peer_retrieve.py --model M.safetensors --vectors V.npy --paths P.txt [-k 10] [--threads 2] IMAGE...

V.npy and P.txt are what `indexer export` writes. Prints rank, score and path, one answer a line.
"""
import argparse
import json
import struct

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps


def load_encoder(path):
    """The encoder's tensors of a .safetensors file, name -> tensor, and its number of views."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = bytearray(f.read())
    views = int(header.pop("__metadata__", {}).get("views", 1))
    if any(name.startswith("flow.") for name in header):
        raise SystemExit("this model has a flow, which this program does not compute")
    tensors = {}
    for name, t in header.items():
        if name.startswith("encoder."):
            begin, end = t["data_offsets"]
            tensors[name] = torch.frombuffer(data, dtype=torch.float32, count=(end - begin) // 4,
                                             offset=begin).reshape(t["shape"])
    return tensors, views


def load_image(path):
    """Oriented, the central square (of 178 x 218: the central 148), area-resampled to 64 x 64, in [-1, 1]."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    w, h = image.size
    side = 148 if (w, h) == (178, 218) else min(w, h)
    left, top = (w - side) // 2, (h - side) // 2
    image = image.resize((64, 64), Image.BOX, (left, top, left + side, top + side))
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1


def encode(p, x):
    for layer in (0, 2, 4, 6):
        x = F.relu(F.conv2d(x, p[f"encoder.{layer}.weight"], p[f"encoder.{layer}.bias"], 2))
    x = F.conv2d(x, p["encoder.8.weight"], p["encoder.8.bias"]).flatten(1)
    return x[:, : x.shape[1] // 2]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--vectors", required=True)
    p.add_argument("--paths", required=True)
    p.add_argument("-k", type=int, default=10)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("images", nargs="+")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    faiss.omp_set_num_threads(a.threads)
    with torch.no_grad():
        tensors, views = load_encoder(a.model)
        x = torch.from_numpy(np.stack([load_image(i) for i in a.images]))
        z = encode(tensors, x)
        if views > 1:
            z = (z + encode(tensors, x.flip(3))) / 2
    query = F.normalize(z).sum(0, keepdim=True).numpy() / len(a.images)
    vectors = np.load(a.vectors)
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    scores, ids = index.search(query, min(a.k, len(vectors)))
    with open(a.paths, encoding="utf-8", errors="surrogateescape") as f:
        paths = f.read().splitlines()
    for rank, (score, i) in enumerate(zip(scores[0], ids[0]), 1):
        print(f"{rank}\t{score:.6f}\t{paths[i]}")


if __name__ == "__main__":
    main()
