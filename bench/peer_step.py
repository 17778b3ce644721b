"""One training step of an isometrically regularized VAE (Lee 2022, architecture `celeba`) in PyTorch.

    peer_step.py [--width 128] [--latent 128] [--batch 16] [--steps 3] [--threads 2] [--variant NAME]

Variants, all computing the same loss and one Adam step on every parameter:
  functional  torch.autograd.functional.jvp and vjp with create_graph, as the authors of the method do
  forward     torch.func.jvp (forward mode), then torch.func.vjp
  shared      torch.func.jvp, and a backward pass through the output it came with
  plain       without the isometric term

Prints one JSON line: the median of `steps` steps after one that warms up, and the peak resident memory.
Exit code 3: this PyTorch has no such variant.
"""
import argparse
import json
import resource
import statistics
import sys
import time

import torch
from torch import nn


def encoder(w, m):
    return nn.Sequential(
        nn.Conv2d(3, w, 5, 2), nn.ReLU(), nn.Conv2d(w, 2 * w, 5, 2), nn.ReLU(),
        nn.Conv2d(2 * w, 4 * w, 5, 2), nn.ReLU(), nn.Conv2d(4 * w, 8 * w, 5, 2), nn.ReLU(),
        nn.Conv2d(8 * w, 2 * m, 1), nn.Flatten())


def decoder(w, m):
    return nn.Sequential(
        nn.Unflatten(1, (m, 1, 1)), nn.ConvTranspose2d(m, 8 * w, 8), nn.ReLU(),
        nn.ConvTranspose2d(8 * w, 4 * w, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4 * w, 2 * w, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(2 * w, w, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(w, 3, 1), nn.Tanh())


def products(variant, f, z, v):
    """J v and J^T J v of f at z, differentiable."""
    if variant == "functional":
        jv = torch.autograd.functional.jvp(f, z, v=v, create_graph=True)[1]
        return jv, torch.autograd.functional.vjp(f, z, v=jv, create_graph=True)[1]
    if variant == "forward":
        jv = torch.func.jvp(f, (z,), (v,))[1]
        return jv, torch.func.vjp(f, z)[1](jv)[0]
    x, jv = torch.func.jvp(f, (z,), (v,))
    return jv, torch.autograd.grad(x, z, jv, create_graph=True)[0]


def relaxed_distortion(variant, f, z, eta=0.2):
    b = len(z)
    delta = torch.rand(b, 1) * (1 + 2 * eta) - eta
    mixed = delta * z + (1 - delta) * z[torch.randperm(b)]
    jv, jtjv = products(variant, f, mixed, torch.randn_like(mixed))
    return jtjv.pow(2).sum(1).mean() / jv.reshape(b, -1).pow(2).sum(1).mean() ** 2


def step(variant, enc, dec, log_sigma_x, optimizer, x, alpha):
    mu, log_sigma = enc(x).chunk(2, 1)
    z = mu + log_sigma.exp() * torch.randn_like(mu)
    error = (dec(z) - x).reshape(len(x), -1).pow(2)
    nll = (error / (2 * torch.exp(2 * log_sigma_x)) + log_sigma_x + 0.9189385332046727).sum(1)
    kl = 0.5 * (mu.pow(2) + torch.exp(2 * log_sigma) - 2 * log_sigma - 1).sum(1)
    loss = (nll + kl).mean()
    if variant != "plain":
        loss = loss + alpha * relaxed_distortion(variant, dec, z)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--width", type=int, default=128)
    p.add_argument("--latent", type=int, default=128)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--alpha", type=float, default=10.0)
    p.add_argument("--variant", default="functional", choices=["functional", "forward", "shared", "plain"])
    a = p.parse_args()
    if a.variant in ("forward", "shared") and not hasattr(torch, "func"):
        return 3
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    enc, dec = encoder(a.width, a.latent), decoder(a.width, a.latent)
    log_sigma_x = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([*enc.parameters(), *dec.parameters(), log_sigma_x], lr=1e-4)
    x = torch.rand(a.batch, 3, 64, 64) * 2 - 1
    spent = []
    for i in range(a.steps + 1):
        start = time.perf_counter()
        loss = step(a.variant, enc, dec, log_sigma_x, optimizer, x, a.alpha)
        if i > 0:
            spent.append(time.perf_counter() - start)
    print(json.dumps({
        "seconds": statistics.median(spent), "variant": a.variant, "torch": torch.__version__, "loss": loss,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
