"""What this GPU can do at best, by PyTorch: bandwidth of a copy, rates of bf16 and fp8 products. One line of JSON."""
import json
import sys

import torch


def seconds(work):
    for _ in range(3):
        work()
    best = 1e9
    for _ in range(5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(4):
            work()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 4e3)
    return best


def fp8_rate(n):
    """None where this PyTorch or GPU has no fp8 product."""
    try:
        a = torch.randn(n, n, device="cuda").to(torch.float8_e4m3fn)
        b = torch.randn(n, n, device="cuda").to(torch.float8_e4m3fn).t()
        one = torch.ones((), device="cuda")
        return 2 * n**3 / seconds(lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16))
    except Exception as e:  # noqa: BLE001
        print(f"no fp8 product: {e}", file=sys.stderr)
        return None


n, size = 8192, 1 << 30
a, b = torch.randn(n, n, device="cuda", dtype=torch.bfloat16), torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
x, y = torch.empty(size, dtype=torch.uint8, device="cuda"), torch.empty(size, dtype=torch.uint8, device="cuda")
print(json.dumps({
    "gpu": torch.cuda.get_device_name(0),
    "copy_bytes_per_second": 2 * size / seconds(lambda: y.copy_(x)),
    "bf16_per_second": 2 * n**3 / seconds(lambda: a @ b),
    "fp8_per_second": fp8_rate(n),
}))
