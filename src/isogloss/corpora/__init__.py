"""Raw and parallel text -> token stores -> batches of language-modelling objectives."""

from isogloss.corpora.batch import ObjectiveBatch, pad_rows
from isogloss.corpora.causal import CausalLM
from isogloss.corpora.contrast import ContrastBatch, ContrastHalf, TranslationContrast, symmetric_info_nce
from isogloss.corpora.cooccurrence import cooccurrence_embeddings
from isogloss.corpora.hub_text import keep_hub_text
from isogloss.corpora.masked import MaskedLM, Masker
from isogloss.corpora.mixture import Draw, MixtureSampler, smoothed_shares, stream_generator, take_blocks
from isogloss.corpora.parallel import PairBatch, ParallelCorpus, read_parallel
from isogloss.corpora.prefix import PrefixLM
from isogloss.corpora.reading import TextSource, read_texts, source_files
from isogloss.corpora.spans import SpanCorruption, raw_length_for, span_lengths
from isogloss.corpora.token_store import BlockView, TokenStore, default_cache, tokenise, tokenizer_digest
from isogloss.corpora.tokenizer import train_tokenizer
from isogloss.corpora.translation import TranslationLM

__all__ = [
    "BlockView",
    "CausalLM",
    "ContrastBatch",
    "ContrastHalf",
    "Draw",
    "MaskedLM",
    "Masker",
    "MixtureSampler",
    "ObjectiveBatch",
    "PairBatch",
    "ParallelCorpus",
    "PrefixLM",
    "SpanCorruption",
    "TextSource",
    "TokenStore",
    "TranslationContrast",
    "TranslationLM",
    "cooccurrence_embeddings",
    "default_cache",
    "keep_hub_text",
    "pad_rows",
    "raw_length_for",
    "read_parallel",
    "read_texts",
    "smoothed_shares",
    "source_files",
    "span_lengths",
    "stream_generator",
    "symmetric_info_nce",
    "take_blocks",
    "tokenise",
    "tokenizer_digest",
    "train_tokenizer",
]
