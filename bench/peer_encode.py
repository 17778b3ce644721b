"""A folder of images to vectors, as one would write it with torch and Pillow.

    peer_encode.py --images DIR --model M.safetensors [--views 1|2] [--workers 2] [--threads 2] [--batch N] [--vectors V.npy]

A DataLoader of `workers` processes opens, crops and resizes with Pillow; the network runs in inference mode. Without --batch the
fastest of several batch sizes and memory layouts is found first, on random images, which is not timed. The time is that from
listing the folder to the last vector; importing, reading the model and that search do not count. Prints one line of JSON.
"""
import argparse
import json
import os
import struct
import time

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps


def load_encoder(path):
    """The encoder's tensors of a .safetensors file: name -> tensor."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = bytearray(f.read())
    header.pop("__metadata__", None)
    tensors = {}
    for name, t in header.items():
        if name.startswith("encoder."):
            begin, end = t["data_offsets"]
            tensors[name] = torch.frombuffer(data, dtype=torch.float32, count=(end - begin) // 4,
                                             offset=begin).reshape(t["shape"]).clone()
    return tensors


class Faces(torch.utils.data.Dataset):
    """Oriented, the central square (of 178 x 218: the central 148), area-resampled to 64 x 64; bytes, channels last."""

    def __init__(self, folder):
        self.paths = sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        image = ImageOps.exif_transpose(Image.open(self.paths[i])).convert("RGB")
        w, h = image.size
        side = 148 if (w, h) == (178, 218) else min(w, h)
        left, top = (w - side) // 2, (h - side) // 2
        image = image.resize((64, 64), Image.BOX, (left, top, left + side, top + side))
        return torch.from_numpy(np.array(image))


class Encoder:
    def __init__(self, tensors, views, layout):
        self.p = {k: v.contiguous(memory_format=layout) if v.dim() == 4 else v for k, v in tensors.items()}
        self.views, self.layout = views, layout

    def codes(self, x):
        p = self.p
        for layer in (0, 2, 4, 6):
            x = F.relu(F.conv2d(x, p[f"encoder.{layer}.weight"], p[f"encoder.{layer}.bias"], 2))
        outputs = p["encoder.8.weight"].shape[0] // 2  # the means; the rest tells how sure
        return F.conv2d(x, p["encoder.8.weight"][:outputs], p["encoder.8.bias"][:outputs]).flatten(1)

    def __call__(self, pixels):
        x = pixels.permute(0, 3, 1, 2).to(torch.float32).contiguous(memory_format=self.layout) / 127.5 - 1
        z = self.codes(x)
        return (z + self.codes(x.flip(3))) / 2 if self.views > 1 else z


def seconds_an_image(encoder, batch):
    pixels = torch.randint(0, 256, (batch, 64, 64, 3), dtype=torch.uint8)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        encoder(pixels)
        best = min(best, (time.perf_counter() - start) / batch)
    return best


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--images", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--views", type=int, default=1)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=0)
    p.add_argument("--layout", choices=("first", "last"), default="last")
    p.add_argument("--vectors")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    tensors = load_encoder(a.model)
    layouts = {"first": torch.contiguous_format, "last": torch.channels_last}
    with torch.inference_mode():
        if not a.batch:
            speed = {(seconds_an_image(Encoder(tensors, a.views, layouts[layout]), batch), batch, layout)
                     for layout in layouts for batch in (32, 64, 128, 256)}
            _, a.batch, a.layout = min(speed)
        encoder = Encoder(tensors, a.views, layouts[a.layout])
        encoder(torch.zeros((a.batch, 64, 64, 3), dtype=torch.uint8))
        start = time.perf_counter()
        loader = torch.utils.data.DataLoader(Faces(a.images), batch_size=a.batch, num_workers=a.workers)
        vectors = torch.cat([encoder(pixels) for pixels in loader]).numpy()
        seconds = time.perf_counter() - start
    if a.vectors:
        np.save(a.vectors, vectors)
    print(json.dumps({"images": len(vectors), "seconds": seconds, "batch": a.batch, "layout": a.layout,
                      "torch": torch.__version__, "pillow": PIL.__version__}))


if __name__ == "__main__":
    main()
