"""How many tokens to read at a time without a gradient: the bundled encoder alone, with adapters, with two prompts.

    python benchmarks/reading_batches.py [--rounds 3] [--threads 1] [--sizes 512 1024 2048 4096]

Every round reads the same 200 random rows (log-normal lengths, 55 tokens on average, as sentences of SIB-200) with every size.
The sizes count tokens of text, as the commands' `--tokens-per-batch` does; prompts come on top.
"""

import numpy as np
import torch
from _timing import arguments, claims, claims_as_list, interleaved, machine, show_claims, show_times, timed, write_json

from isogloss.backbones import load_backbone
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack, TextBatch
from isogloss.training.buckets import TokenBudgetBatches

STACKS = {"alone": [], "two adapters": ["adapter:16", "adapter:8"], "two prompts": ["prompt:20", "prompt:20"]}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    backbone = load_backbone("bundled:encoder", dtype="fp32")
    random = np.random.default_rng(options.seed)
    lengths = np.clip(random.lognormal(3.9, 0.45, 40 if options.tiny else 200), 6, 400).astype(int)
    rows = [torch.from_numpy(random.integers(10, backbone.config.vocab_size, length)) for length in lengths]
    numbers = {}
    for title, modules in STACKS.items():
        made = [create_module(parse_module(text), backbone, seed=options.seed) for text in modules]
        stack = Stack(backbone, made).eval()

        def read(size: int, stack: Stack = stack) -> None:
            sampler = TokenBudgetBatches(lengths, tokens_per_batch=size, shuffle=False)
            for batch in sampler.epoch_batches():
                ids = torch.nn.utils.rnn.pad_sequence([rows[number] for number in batch], batch_first=True)
                mask = (torch.arange(ids.shape[1]) < torch.from_numpy(lengths[batch])[:, None]).long()
                with torch.no_grad():
                    stack.run(TextBatch(ids, mask)).pooled_mean()

        sides = {str(size): timed(lambda number, size=size: read(size)) for size in options.sizes}
        series = interleaved(sides, rounds=options.rounds)
        largest = str(max(options.sizes))
        found = claims(
            series,
            [(f"{largest} / {size}", largest, str(size), None) for size in options.sizes if str(size) != largest],
        )
        show_times(f"{title}: reading all rows, by tokens of a batch", series)
        show_claims(f"{title}: seconds at {largest} tokens over seconds at fewer", found)
        numbers[title] = {
            "times": {name: item.as_dict() for name, item in series.items()},
            "claims": claims_as_list(found),
        }
    print(machine())
    write_json(options.json, {"stacks": numbers})


if __name__ == "__main__":
    main()
