"""The `adapters` side of `language_adapter.py`; runs in an environment of its own and knows nothing of isogloss.

Reads lines from standard input and answers each with a line of JSON: `value N` (loss without dropout), `step N` (one
training step on batch N, with its seconds), `quit`.
"""

import argparse
import gc
import json
import os
import sys
import time

import torch


def main() -> None:
    """Answers until it is told to quit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder of the backbone")
    parser.add_argument("--batches", required=True, help="file of (input_ids, attention_mask, labels)")
    parser.add_argument("--adapter", required=True, help="folder where the fresh adapter is saved")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    # Libraries print; answers go to the real standard output, everything else to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    import adapters  # type: ignore[import-not-found]
    import transformers

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = transformers.AutoModelForMaskedLM.from_pretrained(options.model)
    adapters.init(model)
    model.add_adapter("language", config=adapters.SeqBnConfig(reduction_factor=2))
    model.train_adapter("language")
    # By default the library also trains parts of the LM head; here only the adapter is trained, on both sides.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".adapters." in name)
    model.save_adapter(options.adapter, "language")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    batches = torch.load(options.batches)

    def loss_on(number: int) -> torch.Tensor:
        ids, mask, labels = batches[number]
        return model(input_ids=ids, attention_mask=mask, labels=labels).loss  # type: ignore[no-any-return]

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    answer(
        ready=True,
        adapters=adapters.__version__,
        transformers=transformers.__version__,
        torch=torch.__version__,
        trained=sum(parameter.numel() for parameter in trained),
    )
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "quit":
            break
        number = int(rest[0])
        if command == "value":
            model.eval()
            with torch.no_grad():
                answer(loss=float(loss_on(number)))
            continue
        model.train()
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        loss = loss_on(number)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        answer(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu, loss=float(loss.detach()))


if __name__ == "__main__":
    main()
