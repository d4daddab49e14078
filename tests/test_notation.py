"""The stack notation and module specs: read, printed back, and errors that point."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.modules import (
    METHODS,
    BottleneckConfig,
    LowRankConfig,
    ModuleConfig,
    PromptConfig,
    config_from_dict,
    format_module,
    parse_module,
)
from isogloss.stack import Term, format_notation, parse_notation

_LABELS = st.text(st.characters(exclude_characters=":>", exclude_categories=["Z", "C"]), min_size=1, max_size=8).filter(
    lambda text: not any(character.isspace() for character in text)
)


@given(st.lists(st.builds(Term, st.sampled_from(sorted(METHODS)), _LABELS), min_size=1, max_size=4), st.data())
def test_a_stack_reads_back(terms: list[Term], data: st.DataObject) -> None:
    written = format_notation(tuple(terms))
    assert parse_notation(written) == tuple(terms)
    spaces = data.draw(st.lists(st.sampled_from(["", " ", "  "]), min_size=4, max_size=4))
    loose = written.replace(" > ", f"{spaces[0]}>{spaces[1]}")
    assert parse_notation(spaces[2] + loose + spaces[3]) == tuple(terms)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("prompt:slk > adaptr:topic", 13, "did you mean 'adapter'"),
        ("prompt:slk >  > adapter:topic", 12, "a module is missing"),
        ("", 0, "a module is missing"),
        ("prompt:slk >", 12, "a module is missing"),
        ("prompt", 6, "'prompt' says nothing of what it stands for"),
        ("prompt:slk > adapter:", 21, "adapter"),
        ("prompt:s k", 7, "'s k' is not one language or task name"),
        ("prompt:a:b", 7, "'a:b'"),
        ("xyz:slk", 0, "the methods are"),
    ],
)
def test_errors_quote_the_stack_and_point(text: str, column: int, says: str) -> None:
    with pytest.raises(IsoglossError) as problem:
        parse_notation(text)
    first, quoted, pointer = str(problem.value).split("\n")
    assert first.startswith(f"The stack '{text}' cannot be read: ") and says in first
    assert quoted == f"  {text}"
    assert pointer == "  " + " " * column + "^"


def _config(build: type[ModuleConfig], **values: object) -> ModuleConfig | None:
    try:
        return build(**values)
    except IsoglossError:
        return None


_TEXT = st.one_of(st.text(max_size=12), st.text('a", =\\', max_size=6))
_CONFIGS = st.one_of(
    st.builds(
        _config,
        st.just(BottleneckConfig),
        reduction=st.sampled_from([1, 2, 16, 1.5]),
        variant=st.sampled_from(["seq_bn", "double_seq_bn", "par_bn"]),
        nonlinearity=st.sampled_from(["", "relu", "swish", "gelu"]),
        scaling=st.sampled_from([0.0, 1.0, 4.0, 0.5]),
        learned_scaling=st.booleans(),
        leave_out=st.sampled_from([(), (11,), (0, 3)]),
        sides=st.sampled_from([(), ("encoder",), ("encoder", "decoder")]),
        invertible=st.booleans(),
    ),
    st.builds(
        _config,
        st.just(LowRankConfig),
        rank=st.sampled_from([1, 4, 8, 16]),
        alpha=st.sampled_from([0.0, 8.0, 16.0, 0.5]),
        targets=st.sampled_from([(), ("q",), ("q", "v", "up")]),
    ),
    st.builds(
        _config,
        st.just(PromptConfig),
        length=st.integers(1, 60),
        init=st.sampled_from(["vocabulary", "text", "normal", "uniform", "labels"]),
        text=_TEXT,
        placement=st.sampled_from(["before", "after-bos", "after"]),
        fixed=st.integers(0, 3),
        side=st.sampled_from(["", "encoder", "decoder"]),
        reparameterisation=st.sampled_from(["none", "mlp", "lstm"]),
        residual=st.booleans(),
        layer_norm=st.booleans(),
    ),
).filter(lambda config: config is not None)


@pytest.mark.parametrize(
    "text",
    [
        'Select "Yes", "No" or "Maybe" based on the implication of the premise on the hypothesis in Slovak:',
        'ends with "quotes"',
        '"',
        "a\\",
        'back\\"slash, and = more',
        " spaces around ",
        "tab\there",
    ],
)
def test_texts_with_marks_read_back(text: str) -> None:
    config = PromptConfig(length=5, text=text)
    assert parse_module(format_module(config)) == config


@given(_CONFIGS)
def test_a_spec_reads_back(config: ModuleConfig) -> None:
    assert parse_module(format_module(config)) == config


def test_the_spec_is_short_where_it_can_be() -> None:
    assert format_module(parse_module("prompt")) == "prompt:50"
    assert format_module(parse_module("adapter:2,variant=double_seq_bn")) == "adapter:2,variant=double_seq_bn"
    assert format_module(parse_module("lora:4")) == "lora:4"
    assert format_module(parse_module("none")) == "none"


def test_usual_values_of_the_variants() -> None:
    # papers.md 5.1.
    houlsby, parallel = parse_module("adapter,variant=double_seq_bn"), parse_module("adapter:2,variant=par_bn")
    assert isinstance(houlsby, BottleneckConfig) and isinstance(parallel, BottleneckConfig)
    assert (houlsby.nonlinearity, houlsby.reduction) == ("swish", 16)
    assert (parallel.nonlinearity, parallel.scaling) == ("relu", 4.0)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("adaptor:4", "the methods are"),
        ("prompt:5,lenght=4", "did you mean 'length'"),
        ("prompt:five", "'five'"),
        ("prompt:5,uniform", "option like key=value"),
        ('prompt:5,text="a, b', "quotation mark"),
        ("none:4", "has none"),
        ("prompt:0", "at least 1"),
        ("prompt:5,fixed=6", "fixed"),
        ("prompt:5,init=text", "needs the text itself"),
        ("prompt:5,placement=middle", "before, after-bos, after"),
        ("adapter:0", "above 0"),
        ("adapter:nan", "above 0"),
        ("adapter:16,dropout=1", "dropout"),
        ("adapter,variant=tri_bn", "seq_bn"),
        ("adapter,nonlinearity=relo", "relu"),
        ("adapter,invertible=maybe", "'maybe'"),
        ("lora:0", "at least 1"),
        ("invertible:0", "at least 1"),
    ],
)
def test_spec_errors_are_one_sentence(spec: str, says: str) -> None:
    with pytest.raises(IsoglossError) as problem:
        parse_module(spec)
    assert says in str(problem.value) and "\n" not in str(problem.value)


def test_a_config_from_a_file_with_unknown_parts() -> None:
    with pytest.raises(IsoglossError, match="unknown key 'colour'"):
        config_from_dict("prompt", {"length": 4, "colour": "red"})
    with pytest.raises(IsoglossError, match="'soft'"):
        config_from_dict("soft", {})
    assert config_from_dict("adapter", {"leave_out": [1, 2]}) == BottleneckConfig(leave_out=(1, 2))
