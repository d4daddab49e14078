"""Tiny random models of the three kinds with a tokenizer trained on the spot, and a loop that overfits."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.decoders import Metaspace as MetaspaceDecoder

from isogloss.backbones import Backbone, load_backbone
from isogloss.stack import Stack
from isogloss.tasks import Answer, Example

TEXTS = [
    "the river flows through the green valley",
    "a new vaccine protects the children",
    "the parliament voted for the law",
    "our team won the match on sunday",
    "the train to the coast leaves at noon",
    "scientists found water on the moon",
    "the film opened in every cinema",
    "doctors warn of a long winter flu",
]
TOPICS = [
    "geography",
    "health",
    "politics",
    "sports",
    "travel",
    "science/technology",
    "entertainment",
    "health",
]
WORDS = ["earth", "health", "politics", "sports", "travel", "science", "entertainment", "yes", "no", "maybe"]

_SIZES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "encoder": (
        "XLMRobertaConfig",
        "XLMRobertaForMaskedLM",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 130,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "type_vocab_size": 1,
        },
    ),
    "decoder": (
        "XGLMConfig",
        "XGLMForCausalLM",
        {
            "d_model": 32,
            "num_layers": 2,
            "attention_heads": 4,
            "ffn_dim": 64,
            "max_position_embeddings": 128,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
    ),
    "encoder-decoder": (
        "MT5Config",
        "MT5ForConditionalGeneration",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
            "decoder_start_token_id": 1,
        },
    ),
}
KINDS = tuple(_SIZES)


def tokenizer(kind: str) -> transformers.PreTrainedTokenizerFast:
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.decoder = MetaspaceDecoder()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    corpus = [
        *TEXTS * 3,
        *(" ".join(WORDS[:5]) for _ in range(20)),
        "abcdefghijklmnopqrstuvwxyz 0123456789 $:?,.!\"'()ABCDEFGHIJKLMNOPQRSTUVWXYZ-/\n",
    ]
    trained.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=230, special_tokens=specials, show_progress=False)
    )
    single, pair = {
        "encoder": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
        "decoder": ("</s> $A", "</s> $A </s> $B"),
        "encoder-decoder": ("$A </s>", "$A </s> $B </s>"),
    }[kind]
    ids = [("<s>", 0), ("</s>", 2)]
    trained.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


def save(kind: str, folder: Path) -> Path:
    config_name, model_name, values = _SIZES[kind]
    coded = tokenizer(kind)
    config = getattr(transformers, config_name)(
        vocab_size=len(coded), pad_token_id=1, bos_token_id=0, eos_token_id=2, **values
    )
    torch.manual_seed(3)
    model = getattr(transformers, model_name)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
            elif kind != "encoder-decoder":
                # The default spread of 0.02 makes all states of so narrow a model nearly the same.
                parameter.mul_(5.0 if "embed" in name else 10.0 if kind == "encoder" else 3.0)
            elif "shared" in name:
                parameter.mul_(0.3)
    model.save_pretrained(folder)
    coded.save_pretrained(folder)
    return folder


def load(folder: Path) -> Backbone:
    return load_backbone(folder, device="cpu")


def overfit(
    head: Any, stack: Stack, examples: list[Example], *, steps: int, lr: float
) -> tuple[float, float, list[Any]]:
    """Mean loss before and after Adam on one batch of all examples, and the answers read back."""
    rows = head.encode(examples, budget=stack.text_budget)
    batch = head.collate(rows)
    parameters = [*head.parameters(), *stack.parameters_to_train()]
    optimiser = torch.optim.Adam(parameters, lr=lr)
    first = None
    head.train()
    for _ in range(steps):
        total, count = head.loss(stack, batch)
        first = first or float(total.detach()) / count
        optimiser.zero_grad()
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    head.eval()
    with torch.no_grad():
        total, count = head.loss(stack, batch)
    return first or 0.0, float(total) / count, head.decode(examples, rows, head.predict(stack, batch))


def topic_examples() -> list[Example]:
    return [
        Example(id=str(number), language="eng_Latn", text=text, label=label)
        for number, (text, label) in enumerate(zip(TEXTS, TOPICS, strict=True))
    ]


def nli_examples() -> list[Example]:
    labels = ["entailment", "neutral", "contradiction"]
    return [
        Example(id=str(n), language="eng_Latn", text=TEXTS[n], text_pair=TEXTS[-1 - n], label=labels[n % 3])
        for n in range(8)
    ]


def choice_examples() -> list[Example]:
    return [
        Example(
            id=str(n),
            language="eng_Latn",
            text=TEXTS[n],
            question="cause" if n % 2 else "effect",
            choices=(TEXTS[(n + 3) % 8], TEXTS[(n + 5) % 8]),
            label=(n // 2) % 2,
        )
        for n in range(8)
    ]


def ner_examples() -> list[Example]:
    found = []
    for number, text in enumerate(TEXTS):
        tokens = tuple(text.split())
        tags = ["O"] * len(tokens)
        tags[1 + number % 3] = f"B-{('PER', 'LOC', 'ORG')[number % 3]}"
        tags[2 + number % 3] = f"I-{('PER', 'LOC', 'ORG')[number % 3]}"
        found.append(Example(id=str(number), language="eng_Latn", tokens=tokens, tags=tuple(tags)))
    return found


def pos_examples() -> list[Example]:
    tags = {"the": "DET", "a": "DET", "to": "ADP", "on": "ADP", "for": "ADP", "of": "ADP", "in": "ADP"}
    return [
        Example(
            id=str(number),
            language="eng_Latn",
            tokens=tuple(text.split()),
            tags=tuple(tags.get(word, "NOUN") for word in text.split()),
        )
        for number, text in enumerate(TEXTS)
    ]


def qa_examples() -> list[Example]:
    found = []
    for number, text in enumerate(TEXTS):
        words = text.split()
        answer = " ".join(words[2 : 4 + number % 2])
        found.append(
            Example(
                id=str(number),
                language="eng_Latn",
                question=f"what {words[1]}?",
                context=text,
                answers=(Answer(answer, text.index(answer)),),
            )
        )
    return found


CASES = {
    "topic": topic_examples,
    "nli": nli_examples,
    "choice": choice_examples,
    "ner": ner_examples,
    "pos": pos_examples,
    "qa": qa_examples,
}


def gold(examples: list[Example]) -> list[Any]:
    return [
        item.tags if item.tags is not None else item.answers[0].text if item.answers else item.label
        for item in examples
    ]


__all__ = ["CASES", "KINDS", "TEXTS", "gold", "load", "overfit", "save", "tokenizer"]
