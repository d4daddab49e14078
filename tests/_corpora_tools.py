"""Tiny tokenizers made in the test: one piece a word, ids 0-4 special."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = [f"w{i}" for i in range(200)]


def word_tokenizer(kind="encoder", *, sentinels=0, words=WORDS, extra=()):
    fixed = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(f"<extra_id_{i}>" for i in range(sentinels))]
    vocabulary = {token: i for i, token in enumerate([*fixed, *extra, *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if kind == "encoder":
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    if kind == "encoder-decoder":
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 2)]
        )
    if kind == "decoder-bos":
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if kind == "encoder":
        names["mask_token"] = "<mask>"
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)
