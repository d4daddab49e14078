"""All measurements by name."""

from collections.abc import Callable

import torch

from isogloss.bench import language_adapter, memory, padding, prompt_tuning, routing
from isogloss.bench.result import Options, Result
from isogloss.bench.timing import machine

MEASUREMENTS: dict[str, Callable[[Options], Result]] = {
    "prompt": prompt_tuning.measure,
    "memory": memory.measure,
    "adapter": language_adapter.measure,
    "routing": routing.measure,
    "padding": padding.measure,
}


def run(names: list[str], options: Options) -> tuple[dict[str, object], dict[str, Result]]:
    """Measures one thing after the other.

    Returns:
        The machine that the numbers were taken on, and a result for each name.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        found = {}
        for name in names:
            options.say(f"{name} ...")
            found[name] = MEASUREMENTS[name](options)
        return machine(), found
    finally:
        torch.set_num_threads(before)
