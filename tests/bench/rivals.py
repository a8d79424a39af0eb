#!/usr/bin/env python3
"""What PyTorch reaches at the shapes that bench_ops times on a GPU, in the same columns: matrix products by
cuBLAS, attention by its flash kernels and by cuDNN's, and a large copy. Print both on one machine, one after
the other.

usage: rivals.py [--batch B]      B sequences of 2048 tokens (48)

Attention gets contiguous heads, grouped as the model has them (8 of queries, 4 of keys and values), causal,
without XSA; operations count the pairs that are seen, backward 2.5 times forward. A time is that of ten
launches between two waits, divided by ten: the median and the best of many.
"""
import argparse
import sys

try:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention
except ImportError:
    sys.exit("rivals.py needs PyTorch")

TOKENS, WIDTH, HEADS, GROUPS, HEAD, HIDDEN, VOCABULARY = 2048, 512, 8, 4, 64, 1536, 1024
LAUNCHES, SECONDS, LEAST = 10, 0.3, 7

ceiling = None
copy_speed = None


def measure(call):
    """Median and best seconds of one call, after a few that warm up."""
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    times = []
    while len(times) < LEAST or sum(times) * LAUNCHES < SECONDS:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(LAUNCHES):
            call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000 / LAUNCHES)
    times.sort()
    return times[len(times) // 2], times[0]


def report(op, shape, call, flops=0.0, moved=0.0):
    global ceiling, copy_speed
    median, best = measure(call)
    line = f"{op:<26} {shape:<26} {1e3 * median:9.3f} {1e3 * best:9.3f}"
    if flops:
        ceiling = ceiling or flops / best
        print(f"{line} {1e-9 * flops / best:9.1f} {'':9} {flops / best / ceiling:7.2f}", flush=True)
    else:
        copy_speed = copy_speed or moved / best
        print(f"{line} {'':9} {1e-9 * moved / best:9.1f} {moved / best / copy_speed:7.2f}", flush=True)


def normal(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def product(op, m, n, k, transpose_a=False, transpose_b=False):
    """c [m,n] = op(a) op(b); PyTorch's own result type, bfloat16, also for gradients of weights."""
    a = normal(k, m).t() if transpose_a else normal(m, k)
    b = normal(n, k).t() if transpose_b else normal(k, n)
    out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
    report(op, f"M={m} N={n} K={k}", lambda: torch.mm(a, b, out=out), flops=2.0 * m * n * k)


def products(rows):
    qkv = (HEADS + 2 * GROUPS) * HEAD
    product("gemm qkv forward", rows, qkv, WIDTH, transpose_b=True)
    product("gemm mlp forward", rows, HIDDEN, WIDTH, transpose_b=True)
    product("gemm mlp down", rows, WIDTH, HIDDEN, transpose_b=True)
    product("gemm mlp dX", rows, WIDTH, HIDDEN)
    product("gemm mlp dW", HIDDEN, WIDTH, rows, transpose_a=True)
    product("gemm out dW", WIDTH, WIDTH, rows, transpose_a=True)
    product("gemm qkv dX", rows, WIDTH, qkv)
    product("gemm qkv dW", qkv, WIDTH, rows, transpose_a=True)
    product("gemm out", rows, WIDTH, WIDTH, transpose_b=True)
    product("gemm logits", rows, VOCABULARY, WIDTH, transpose_b=True)


def attention(batch, name, backend):
    q = normal(batch, HEADS, TOKENS, HEAD).requires_grad_()
    k = normal(batch, GROUPS, TOKENS, HEAD).requires_grad_()
    v = normal(batch, GROUPS, TOKENS, HEAD).requires_grad_()
    d_out = normal(batch, HEADS, TOKENS, HEAD)
    flops = 4.0 * batch * HEADS * HEAD * TOKENS * (TOKENS + 1) / 2

    def forward():
        return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    try:
        with sdpa_kernel(backend):
            report("attention_forward", name, forward, flops=flops)
            out = forward()

            def backward():
                torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True)

            report("attention_backward", name, backward, flops=2.5 * flops)
    except RuntimeError as error:
        print(f"{'attention':<26} {name:<26} not here: {str(error).splitlines()[0]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=48)
    batch = parser.parse_args().batch
    if not torch.cuda.is_available():
        sys.exit("rivals.py: PyTorch sees no GPU")
    torch.manual_seed(1)
    print(f"{torch.cuda.get_device_name()}; PyTorch {torch.__version__}, CUDA {torch.version.cuda}, "
          f"cuDNN {torch.backends.cudnn.version()}")
    print(f"{'op':<26} {'shape':<26} {'ms':>9} {'best ms':>9} {'GFLOP/s':>9} {'GB/s':>9} {'ratio':>7}")
    product("gemm (the ceiling)", 8192, 8192, 8192)
    a, b = (torch.empty(1 << 28, device="cuda") for _ in range(2))
    report("copy (the bytes' ceiling)", "", lambda: a.copy_(b), moved=8.0 * (1 << 28))
    del a, b
    products(batch * TOKENS)
    attention(batch, "PyTorch's flash", SDPBackend.FLASH_ATTENTION)
    attention(batch, "cuDNN's", SDPBackend.CUDNN_ATTENTION)


main()
