"""Saved modules: what goes in comes out, and what was altered is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import MT5Config, MT5ForConditionalGeneration, XLMRobertaConfig, XLMRobertaForMaskedLM

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.formats import list_modules, load_module, read_info, save_module
from isogloss.modules import (
    BottleneckConfig,
    InvertibleConfig,
    LowRankConfig,
    ModuleConfig,
    NoneConfig,
    PromptConfig,
    TransferModule,
    create_module,
    parse_module,
)
from isogloss.storage import load_tensors, save_tensors


def _xlmr(folder: Path, seed: int) -> Backbone:
    torch.manual_seed(seed)
    config = XLMRobertaConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        pad_token_id=1,
    )
    XLMRobertaForMaskedLM(config).save_pretrained(folder)
    return load_backbone(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return _xlmr(tmp_path_factory.mktemp("encoder"), 0)


@pytest.fixture(scope="module")
def other_encoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return _xlmr(tmp_path_factory.mktemp("other"), 1)


@pytest.fixture(scope="module")
def mt5(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mt5")
    config = MT5Config(vocab_size=60, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=3, num_heads=4)
    MT5ForConditionalGeneration(config).save_pretrained(folder)
    return load_backbone(folder)


def _module(config: ModuleConfig, backbone: Backbone, seed: int = 3) -> TransferModule:
    module = create_module(config, backbone, seed=seed)
    module.info.role, module.info.language = "language", "slk_Latn"
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return module


_MT5_CONFIGS = st.one_of(
    st.builds(
        BottleneckConfig,
        reduction=st.sampled_from([2, 4, 7.5, 100]),
        variant=st.sampled_from(["seq_bn", "double_seq_bn", "par_bn"]),
        nonlinearity=st.sampled_from(["", "gelu", "tanh"]),
        scaling=st.sampled_from([0.0, 0.5]),
        learned_scaling=st.booleans(),
        dropout=st.sampled_from([0.0, 0.1]),
        leave_out=st.lists(st.integers(0, 4), unique=True, max_size=4).map(tuple),
        invertible=st.booleans(),
    ),
    st.builds(InvertibleConfig, reduction=st.integers(1, 20)),
    st.builds(
        PromptConfig,
        length=st.integers(2, 6),
        init=st.sampled_from(["uniform", "normal", "vocabulary"]),
        fixed=st.integers(0, 2),
        side=st.sampled_from(["", "encoder", "decoder"]),
    ),
    st.builds(
        LowRankConfig,
        rank=st.integers(1, 5),
        alpha=st.sampled_from([0.0, 3.0]),
        targets=st.sampled_from([(), ("q",), ("o", "up", "down")]),
        sides=st.sampled_from([(), ("decoder",)]),
    ),
    st.just(NoneConfig()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=_MT5_CONFIGS)
def test_round_trip_keeps_config_info_and_every_bit(config: ModuleConfig, mt5: Backbone, tmp_path: Path) -> None:
    module = _module(config, mt5)
    module.info.scores = {"dev": {"accuracy": 61.25}}
    save_module(module, tmp_path / "m", overwrite=True)
    again = load_module(tmp_path / "m", mt5)
    assert again.config == config
    assert dataclasses.asdict(again.info) == dataclasses.asdict(module.info)
    before, after = module.weight_tensors(), again.weight_tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(tensor.requires_grad for tensor in again.parameters())
    assert not again.training


@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_reparameterisation_is_folded_away(kind: str, encoder: Backbone, tmp_path: Path) -> None:
    module = _module(parse_module(f"prompt:5,init=normal,reparameterisation={kind},hidden=6,fixed=1"), encoder)
    save_module(module, tmp_path / "m")
    again = load_module(tmp_path / "m", encoder)
    assert sorted(load_tensors(tmp_path / "m" / "module.safetensors")) == [
        "module/prompt.fixed",
        "module/prompt.vectors",
    ]
    expected = module.vectors(module.weights("prompt"))  # type: ignore[operator]
    found = again.vectors(again.weights("prompt"))  # type: ignore[operator]
    # torch runs an LSTM by another kernel when no gradient is asked for, hence not to the last bit.
    torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=1e-6)


def test_text_prompt_loads_where_there_is_no_tokenizer(encoder: Backbone, tmp_path: Path) -> None:
    config = PromptConfig(length=3, text="Generate the output in Slovak:")
    module = create_module(config, encoder, vectors=torch.randn(3, 32))
    save_module(module, tmp_path / "m")
    again = load_module(tmp_path / "m", encoder)
    assert again.config == config
    assert torch.equal(again.weight_tensors()["prompt.vectors"], module.weight_tensors()["prompt.vectors"])


def test_head_and_changed_backbone_weights_travel_with_the_module(encoder: Backbone, tmp_path: Path) -> None:
    module = _module(NoneConfig(), encoder)
    module.head = torch.nn.Linear(32, 7)
    name = "roberta.encoder.layer.0.output.dense.weight"
    module.backbone_state = {name: torch.randn(32, 64)}
    module.info.head = {"kind": "linear", "labels": ["a", "b"]}
    save_module(module, tmp_path / "m")
    again = load_module(tmp_path / "m", encoder)
    assert again.head is None
    assert again.info.head == module.info.head
    assert torch.equal(again.head_state["weight"], module.head.weight)
    assert torch.equal(again.head_state["bias"], module.head.bias)
    assert again.backbone_state is not None
    assert torch.equal(again.backbone_state[name], module.backbone_state[name])
    # A loaded module can be saved again without its head being rebuilt.
    save_module(again, tmp_path / "again")
    assert load_module(tmp_path / "again", encoder).head_state.keys() == {"weight", "bias"}


def test_backbone_weight_of_another_shape_is_refused(encoder: Backbone, tmp_path: Path) -> None:
    module = _module(NoneConfig(), encoder)
    module.backbone_state = {"roberta.encoder.layer.0.output.dense.weight": torch.zeros(2, 2)}
    save_module(module, tmp_path / "m")
    with pytest.raises(IsoglossError, match=r"roberta\.encoder\.layer\.0"):
        load_module(tmp_path / "m", encoder)


def test_half_precision_module_is_saved_in_float32(encoder: Backbone, tmp_path: Path) -> None:
    module = _module(parse_module("adapter:4"), encoder).to(torch.bfloat16)
    save_module(module, tmp_path / "m")
    stored = load_tensors(tmp_path / "m" / "module.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}


def test_read_info_needs_no_tensors_and_list_finds_all(encoder: Backbone, tmp_path: Path) -> None:
    save_module(_module(parse_module("adapter:4"), encoder), tmp_path / "b" / "deep")
    save_module(_module(parse_module("prompt:4,init=normal"), encoder), tmp_path / "a")
    (tmp_path / "b" / "deep" / "module.safetensors").unlink()
    saved = read_info(tmp_path / "b" / "deep")
    assert saved.method == "adapter"
    assert saved.config == parse_module("adapter:4")
    assert saved.info.language == "slk_Latn"
    assert saved.parameters == 3 * (2 * 8 * 32 + 8 + 32)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "module.json").write_text("{}")
    found = list_modules(tmp_path)
    assert [item.folder.relative_to(tmp_path) for item in found] == [Path("a"), Path("b/deep")]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "module.json").write_text('{"format": 1')
    with pytest.raises(IsoglossError, match="broken"):
        list_modules(tmp_path)
    problems: list[str] = []
    assert len(list_modules(tmp_path, problems=problems)) == 2
    assert len(problems) == 1
    assert "broken" in problems[0]
    with pytest.raises(IsoglossError, match="does not exist"):
        list_modules(tmp_path / "nowhere")


# Refusals.


def test_other_backbone_is_refused_with_both_fingerprints(
    encoder: Backbone, other_encoder: Backbone, tmp_path: Path
) -> None:
    save_module(_module(parse_module("adapter:4"), encoder), tmp_path / "m")
    with pytest.raises(IsoglossError) as caught:
        load_module(tmp_path / "m", other_encoder)
    for text in (encoder.fingerprint, other_encoder.fingerprint, encoder.name, other_encoder.name):
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_occupied_folder_is_refused_unless_told(encoder: Backbone, tmp_path: Path) -> None:
    module = _module(parse_module("adapter:4"), encoder)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("precious")
    with pytest.raises(IsoglossError, match="already holds"):
        save_module(module, tmp_path / "m")
    assert (tmp_path / "m" / "thesis.txt").read_text() == "precious"
    save_module(module, tmp_path / "m", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "README.md",
        "module.json",
        "module.safetensors",
    ]


def test_failed_save_leaves_nothing(encoder: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module(parse_module("adapter:4"), encoder)
    module.info.training = {"path": Path("x")}
    with pytest.raises(IsoglossError, match="not JSON"):
        save_module(module, tmp_path / "m")
    module.info.training = {}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isogloss.formats.saved.write_json", full)
    with pytest.raises(IsoglossError, match="No space left on device"):
        save_module(module, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_module_without_fingerprint_is_not_saved(encoder: Backbone, tmp_path: Path) -> None:
    module = _module(parse_module("adapter:4"), encoder)
    module.info.fingerprint = ""
    with pytest.raises(IsoglossError, match="fingerprint"):
        save_module(module, tmp_path / "m")


@pytest.fixture(scope="module")
def saved_folder(encoder: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_module(_module(parse_module("adapter:16"), encoder), tmp_path_factory.mktemp("saved") / "m")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_or_truncated_byte_is_refused(
    data: st.DataObject, encoder: Backbone, saved_folder: Path, tmp_path: Path
) -> None:
    content = bytearray((saved_folder / "module.safetensors").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    shutil.copytree(saved_folder, tmp_path / "m", dirs_exist_ok=True)
    (tmp_path / "m" / "module.safetensors").write_bytes(content)
    with pytest.raises(IsoglossError, match="truncated or altered"):
        load_module(tmp_path / "m", encoder)


def _rewrite(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "module.json").read_text())
    for key, value in changes.items():
        content.pop(key) if value is None else content.__setitem__(key, value)
    (folder / "module.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": "1"}, "no format number"),
        ({"method": "swimming"}, "method 'swimming'"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"config": {"reduction": 16, "shrink": 2}}, "unknown key 'shrink'"),
        ({"config": {"reduction": "large"}}, "wrong type"),
        ({"config": [1]}, "'config' of the wrong type"),
        ({"config": {"reduction": -1}}, "above 0"),
        ({"fingerprint": None}, "lacks the key 'fingerprint'"),
        ({"head": []}, "'head' of the wrong type"),
        ({"role": "cook"}, "role 'cook'"),
        ({"tensors": {"file": "../x"}}, "tensor file"),
    ],
)
def test_altered_description_is_refused(
    changes: dict[str, object], message: str, encoder: Backbone, saved_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved_folder, tmp_path / "m")
    _rewrite(tmp_path / "m", **changes)
    with pytest.raises(IsoglossError, match=message) as caught:
        load_module(tmp_path / "m", encoder)
    assert str(tmp_path / "m") in str(caught.value)


def _replace_tensors(folder: Path, change: object) -> None:
    """Exchanges the tensor file together with its digest, as another program might."""
    from isogloss.storage import file_digest

    tensors = load_tensors(folder / "module.safetensors")
    change(tensors)  # type: ignore[operator]
    save_tensors(folder / "module.safetensors", tensors)
    facts = {
        "file": "module.safetensors",
        "sha256": file_digest(folder / "module.safetensors"),
        "parameters": 1,
    }
    _rewrite(folder, tensors=facts)


_ONE = "module/encoder_0_stream.down_bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(_ONE), "lack 'encoder_0_stream.down_bias'"),
        (lambda tensors: tensors.update({"module/extra": torch.zeros(1)}), "include 'extra'"),
        (lambda tensors: tensors.update({"stray": torch.zeros(1)}), "'stray'"),
        (lambda tensors: tensors.update({_ONE: torch.zeros(5)}), r"has shape \(5,\), but \(2,\)"),
    ],
)
def test_tensors_must_fit_the_config(
    change: object, message: str, encoder: Backbone, saved_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved_folder, tmp_path / "m")
    _replace_tensors(tmp_path / "m", change)
    with pytest.raises(IsoglossError, match=message):
        load_module(tmp_path / "m", encoder)


def test_folder_that_is_no_module(encoder: Backbone, tmp_path: Path, saved_folder: Path) -> None:
    with pytest.raises(IsoglossError, match=r"not a saved module.*module\.json"):
        load_module(tmp_path, encoder)
    shutil.copytree(saved_folder, tmp_path / "m")
    (tmp_path / "m" / "module.safetensors").unlink()
    with pytest.raises(IsoglossError, match=r"has no module\.safetensors"):
        load_module(tmp_path / "m", encoder)


def test_description_cannot_ask_for_training_parts(encoder: Backbone, tmp_path: Path) -> None:
    save_module(_module(parse_module("prompt:4,init=normal"), encoder), tmp_path / "m")
    content = json.loads((tmp_path / "m" / "module.json").read_text())
    _rewrite(tmp_path / "m", config=content["config"] | {"reparameterisation": "mlp"})
    with pytest.raises(IsoglossError, match="parts that a saved module does not have"):
        load_module(tmp_path / "m", encoder)


def test_bundled_modules_have_names() -> None:
    backbone = load_backbone("bundled:encoder")
    for name in (
        "bundled:encoder/adapter/sk",
        "bundled:encoder/adapter/Slovak",
        Path("bundled:encoder/adapter/slk_Latn"),
    ):
        assert load_module(name, backbone).info.language == "slk_Latn"


@pytest.mark.parametrize(
    "name", ["encoder/lora/sk", "encoder/adapter/eu", "encoder/adapter", "encoder/adapter/../sk", ""]
)
def test_bundled_modules_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(IsoglossError, match=r"there is bundled:\{.*encoder/adapter,.*\}/LANGUAGE|language"):
        read_info(f"bundled:{name}")
