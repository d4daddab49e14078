"""What this machine's processor says of itself."""

import platform
import re
from functools import cache
from pathlib import Path

import torch

# x86's and ARM's names of instructions that multiply in bf16.
_BF16 = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")


@cache
def processor() -> str:
    """The processor's maker as it calls itself, with its features where the system tells them."""
    info = Path("/proc/cpuinfo")
    # The first core speaks for all.
    return info.read_text(errors="replace").partition("\n\n")[0] if info.exists() else platform.processor()


def has_bf16(device: torch.device | str) -> bool:
    """Whether a device multiplies in bf16 itself; one that does not takes several times as long as in fp32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind != "cpu" or _BF16.search(processor()) is not None
