"""One training step in PyTorch, of what benchstep times: an isometrically regularized VAE (Lee 2022), or, with --flatten, the flow
that flattens a trained one (Lee 2022 4.2).

    peer_step.py --inputs FILE [--arch celeba|mlp] [--flatten] [--width 128] [--latent 128] [--steps 3] [--threads 2] [--variant NAME]
                 [--layout first|last] [--compile none|default]

FILE has parameters and a step's inputs, as `benchstep --save FILE` writes them: both then compute the same numbers, and the losses can be
compared. The noise of p(x|z) is the batch's optimum. One Adam step on every parameter (--flatten: the flow's; encoder and decoder are
frozen). Variants, all of the same loss:
  functional  torch.autograd.functional.jvp and vjp with create_graph, as the authors of the method do
  forward     torch.func.jvp (forward mode), then torch.func.vjp
  shared      torch.func.jvp, and a backward pass through the output it came with
  plain       without the isometric term
--layout last keeps images, what becomes of them and kernels channels last. --compile hands forward pass and loss, derivatives and all,
to torch.compile.

Prints one JSON line: the median of `steps` steps after one that warms up, the loss before and after that first step, R, and
the peak resident memory.
Exit code 3: this PyTorch has no such variant or cannot compile it, or the net has no images to lay out; the last line on stderr says why.
"""
import argparse
import json
import math
import resource
import statistics
import struct
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


def absent(why):
    print(why, file=sys.stderr)
    sys.exit(3)


def read_safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = bytearray(f.read())
    return {name: torch.frombuffer(data, dtype=torch.float32, offset=t["data_offsets"][0],
                                   count=math.prod(t["shape"])).reshape(t["shape"]).clone()
            for name, t in header.items() if name != "__metadata__"}


def celeba(w, m):
    encoder = nn.Sequential(
        nn.Conv2d(3, w, 5, 2), nn.ReLU(), nn.Conv2d(w, 2 * w, 5, 2), nn.ReLU(),
        nn.Conv2d(2 * w, 4 * w, 5, 2), nn.ReLU(), nn.Conv2d(4 * w, 8 * w, 5, 2), nn.ReLU(),
        nn.Conv2d(8 * w, 2 * m, 1), nn.Flatten())
    decoder = nn.Sequential(
        nn.Unflatten(1, (m, 1, 1)), nn.ConvTranspose2d(m, 8 * w, 8), nn.ReLU(),
        nn.ConvTranspose2d(8 * w, 4 * w, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4 * w, 2 * w, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(2 * w, w, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(w, 3, 1), nn.Tanh())
    return encoder, decoder


def mlp(m, hidden=256, layers=4, data=784):
    def net(inputs, outputs):
        sizes = [inputs] + [hidden] * layers
        parts = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b), nn.ReLU())]
        return [*parts, nn.Linear(hidden, outputs)]
    return nn.Sequential(*net(data, 2 * m)), nn.Sequential(*net(m, data), nn.Sigmoid())


class Flow(nn.Module):
    """RealNVP: coupling k keeps one half a and moves the other by b exp(tanh s(a)) + t(a)."""

    def __init__(self, m, depth, length):
        super().__init__()
        self.half = m // 2
        net = lambda k: nn.Sequential(nn.Linear((m // 2, m - m // 2)[k % 2], length), nn.ReLU(),
                                      nn.Linear(length, (m - m // 2, m // 2)[k % 2]))
        self.s = nn.ModuleList(net(k) for k in range(depth))
        self.t = nn.ModuleList(net(k) for k in range(depth))

    def forward(self, z):
        a, b = z[:, :self.half], z[:, self.half:]
        for k, (s, t) in enumerate(zip(self.s, self.t)):
            if k % 2 == 0:
                b = b * torch.tanh(s(a)).exp() + t(a)
            else:
                a = a * torch.tanh(s(b)).exp() + t(b)
        return torch.cat((a, b), 1)

    def inverse(self, y):
        a, b = y[:, :self.half], y[:, self.half:]
        for k in reversed(range(len(self.s))):
            if k % 2 == 0:
                b = (b - self.t[k](a)) * torch.exp(-torch.tanh(self.s[k](a)))
            else:
                a = (a - self.t[k](b)) * torch.exp(-torch.tanh(self.s[k](b)))
        return torch.cat((a, b), 1)


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


def compiled(losses, mode):
    """What torch.compile makes of a function with derivatives inside: it traces these where it can be told to."""
    import torch._dynamo
    if hasattr(torch._dynamo.config, "trace_autograd_ops"):
        torch._dynamo.config.trace_autograd_ops = True
    return torch.compile(losses, mode=None if mode == "default" else mode, fullgraph=True)


class Step:
    def __init__(self, a, given):
        self.a, self.net = a, nn.Module()
        self.net.encoder, self.net.decoder = celeba(a.width, a.latent) if a.arch == "celeba" else mlp(a.latent)
        if a.flatten:
            self.net.flow = Flow(a.latent, a.depth, a.length)
        self.net.load_state_dict({name: t for name, t in given.items() if not name.startswith("input.") and name != "sigma"})
        layout = {"memory_format": torch.channels_last if a.layout == "last" else torch.contiguous_format}
        self.net.to(**layout)
        trained = self.net.flow if a.flatten else self.net
        self.net.requires_grad_(False)
        trained.requires_grad_(True)
        self.optimizer = torch.optim.Adam(trained.parameters(), lr=1e-4, **self.fused(trained))
        self.x, self.v, self.delta = (given["input." + n] for n in ("x", "v", "delta"))
        self.perm, self.eps = given["input.perm"].long(), given.get("input.eps")
        if self.x.dim() == 4:
            self.x = self.x.permute(0, 3, 1, 2).contiguous(**layout)
        self.losses = self.flattening if a.flatten else self.vae
        if a.compile != "none":
            self.losses = compiled(self.losses, a.compile)

    @staticmethod
    def fused(module):
        """Adam in one kernel, where this PyTorch has it on a CPU."""
        try:
            p = nn.Parameter(torch.zeros(1))
            p.grad = torch.zeros(1)
            torch.optim.Adam([p], fused=True).step()
            return {"fused": True}
        except Exception:
            return {}

    def distortion(self, f, z):
        b = len(z)
        mixed = self.delta * z + (1 - self.delta) * z[self.perm]
        jv, jtjv = products(self.a.variant, f, mixed, self.v)
        return jtjv.pow(2).sum(1).mean() / jv.reshape(b, -1).pow(2).sum(1).mean() ** 2

    def flattening(self):
        code = self.net.flow(self.x)
        ratio = self.distortion(lambda z: self.net.decoder(self.net.flow.inverse(z)), code)
        return ratio + self.a.beta * code.pow(2).sum(1).mean(), ratio

    def vae(self):
        mu, log_sigma = self.net.encoder(self.x).chunk(2, 1)
        z = mu + log_sigma.exp() * self.eps
        mse = F.mse_loss(self.net.decoder(z), self.x)
        nll = self.x[0].numel() / 2 * (torch.log(2 * math.pi * mse) + 1)
        kl = 0.5 * (mu.pow(2) + torch.exp(2 * log_sigma) - 2 * log_sigma - 1).sum(1).mean()
        if self.a.variant == "plain":
            return nll + kl, torch.zeros(())
        ratio = self.distortion(self.net.decoder, z)
        return nll + kl + self.a.alpha * ratio, ratio

    def run(self):
        loss, ratio = self.losses()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item(), ratio.item()


def timed(step, warm_up):
    """Seconds and processor seconds of each step after `warm_up` others, and the losses of all."""
    spent, cpu, losses = [], [], []
    for i in range(warm_up + step.a.steps):
        start, start_cpu = time.perf_counter(), time.process_time()
        try:
            losses.append(step.run())
        except Exception as e:
            if step.a.compile == "none" or i > 0:
                raise
            absent(f"PyTorch {torch.__version__} cannot compile this: {(str(e).strip() or type(e).__name__).splitlines()[0][:200]}")
        if i >= warm_up:
            spent.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
    return spent, cpu, losses


def add_options(p, batch, steps, layout, modes):
    """The options of a step, whose defaults and ways to compile depend on where it runs."""
    p.add_argument("--inputs")
    p.add_argument("--arch", default="celeba", choices=["celeba", "mlp"])
    p.add_argument("--flatten", action="store_true")
    for name, default in (("width", 128), ("latent", 128), ("depth", 8), ("length", 512), ("batch", batch), ("steps", steps)):
        p.add_argument("--" + name, type=int, default=default)
    p.add_argument("--alpha", type=float, default=10.0)
    p.add_argument("--beta", type=float, default=10.0)
    p.add_argument("--variant", default="functional", choices=["functional", "forward", "shared", "plain"])
    p.add_argument("--layout", default=layout, choices=["first", "last"])
    p.add_argument("--compile", default="none", choices=["none", "default", *modes])


def check(a):
    if a.variant in ("forward", "shared") and not hasattr(torch, "func"):
        absent(f"PyTorch {torch.__version__} has no torch.func")
    if a.compile != "none" and not hasattr(torch, "compile"):
        absent(f"PyTorch {torch.__version__} has no torch.compile")


def main():
    p = argparse.ArgumentParser()
    add_options(p, 16, 3, "first", [])
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    check(a)
    if a.layout == "last" and a.arch == "mlp":
        absent("no images to lay out")
    torch.set_num_threads(a.threads)
    step = Step(a, read_safetensors(a.inputs))
    spent, cpu, losses = timed(step, 1)
    print(json.dumps({
        "seconds": statistics.median(spent), "cpu_seconds": statistics.median(cpu), "variant": a.variant, "layout": a.layout, "torch": torch.__version__,
        "loss": losses[0][0], "loss_after": losses[1][0], "ratio": losses[0][1],
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
