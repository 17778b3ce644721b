"""One training step in PyTorch on a GPU (or, to see that it works, on the CPU), of what benchstep times: see peer_step.py, whose
nets and losses these are.

    peer_gpu.py --inputs FILE [--device cuda|cpu] [--compile none|default|reduce-overhead] [--arch celeba|mlp] [--flatten]
                [--variant functional|forward|shared|plain] [--layout last|first] [--graph] [--steps 20] [--exact] ...
    peer_gpu.py --rate [--device cuda|cpu] [--exact]

As fast as PyTorch goes without changing the step: TF32 in products and convolutions as ours (--exact: float32), channels last unless
told otherwise, cuDNN's algorithms chosen by measuring, Adam in one kernel, one wait a step (to read the loss). --compile hands forward
pass and loss, derivatives and all, to torch.compile; reduce-overhead makes CUDA graphs of them. --graph: the whole step, Adam with it, is
one CUDA graph, captured after some steps that ran as they come.

Prints one JSON line: the median of `steps` steps after some that warm up, the loss before and after the first step, R, the GPU and
its memory taken. --rate: instead the rate of matrix products of 8192 x 8192 x 8192 (CPU: 1024), FLOP/s.
Exit code 3: this PyTorch has no such variant or cannot compile it, or sees no such device.
"""
import argparse
import json
import os
import resource
import statistics
import sys
import time

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer_step

WARM_UP = 5
BEFORE_CAPTURE = 3  # of these, what PyTorch wants to have run by then


class Step(peer_step.Step):
    def __init__(self, a, given):
        super().__init__(a, given)
        self.net.to(a.device)
        self.x, self.v, self.delta, self.perm = (t.to(a.device) for t in (self.x, self.v, self.delta, self.perm))
        self.eps = None if self.eps is None else self.eps.to(a.device)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        try:
            self.optimizer = torch.optim.Adam(trained, lr=1e-4, fused=True, capturable=a.graph)
        except (TypeError, RuntimeError, ValueError):
            self.optimizer = torch.optim.Adam(trained, lr=1e-4, capturable=a.graph)

    def body(self):
        loss, ratio = self.losses()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return torch.stack((loss.detach(), ratio.detach().to(loss.device)))

    def run(self):
        if self.a.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        return self.body().tolist()


class Captured(Step):
    def __init__(self, a, given):
        super().__init__(a, given)
        self.graph, self.found, self.ran = None, None, 0

    def run(self):
        self.ran += 1
        if self.ran <= BEFORE_CAPTURE:
            stream = torch.cuda.Stream()  # capturing wants another than the default one
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                found = self.body().tolist()
            torch.cuda.current_stream().wait_stream(stream)
            return found
        if self.graph is None:
            self.optimizer.zero_grad(set_to_none=True)  # gradients are to lie in the graph's memory
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):  # runs nothing
                self.found = self.body()
        self.graph.replay()
        return self.found.tolist()


def rate(device):
    n = 8192 if device == "cuda" else 1024
    a, b = (torch.rand(n, n, device=device) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    spent = []
    for i in range(8):
        wait()
        start = time.perf_counter()
        a @ b
        wait()
        spent.append(time.perf_counter() - start)
    return 2 * n ** 3 / min(spent)


def parse():
    p = argparse.ArgumentParser()
    peer_step.add_options(p, 100, 20, "last", ["reduce-overhead"])
    p.add_argument("--rate", action="store_true")
    p.add_argument("--exact", action="store_true")
    p.add_argument("--graph", action="store_true")
    p.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    return p.parse_args()


def main():
    a = parse()
    if a.device == "cuda" and not torch.cuda.is_available():
        peer_step.absent(f"PyTorch {torch.__version__} sees no GPU")
    if a.graph and a.device != "cuda":
        peer_step.absent("graphs are a GPU's")
    peer_step.check(a)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not a.exact
    torch.backends.cudnn.benchmark = True
    gpu = torch.cuda.get_device_name() if a.device == "cuda" else "CPU"
    if a.rate:
        print(json.dumps({"rate": rate(a.device), "gpu": gpu, "torch": torch.__version__}))
        return 0
    step = (Captured if a.graph else Step)(a, peer_step.read_safetensors(a.inputs))
    spent, _, losses = peer_step.timed(step, WARM_UP)
    taken = torch.cuda.max_memory_allocated() if a.device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({
        "seconds": statistics.median(spent), "variant": a.variant, "layout": a.layout, "compile": a.compile, "torch": torch.__version__, "gpu": gpu,
        "loss": losses[0][0], "loss_after": losses[1][0], "ratio": losses[0][1], "memory": taken}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
