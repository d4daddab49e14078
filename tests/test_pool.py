"""The prompt pool: against a plain prompt, slow reference code, finite differences, and one language at a time."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module, save_module
from isogloss.modules import PoolConfig, PromptPool, create_module, format_module, parse_module
from isogloss.stack import Bank, Stack, TextBatch, retrieval
from tests._stack_tools import BOS, batch_of, close, make, pad, texts

Tiny = Callable[[str], Backbone]
KINDS = ("xlmr", "eurobert", "llama", "mt5")
SPECS = (
    "pool:6x3",
    "pool:6x3,query=max,similarity=scaled,temperature=0.7",
    "pool:6x3,query=mean-pass,similarity=dot",
    "pool:6x3,selection=top-soft,top=2",
    "pool:6x3,selection=top-hard,top=2,pull=0.5",
    "pool:6x3,selection=random",
    "pool:2x3,selection=oracle,languages=eng_Latn+deu_Latn",
)


def rows_of(backbone: Backbone, name: str, count: int = 5) -> TextBatch:
    """Texts of different lengths, BOS first where the family has it."""
    rows = texts(count, [4, 7, 3])
    return batch_of(backbone, [[BOS[name], *row] if name in BOS else row for row in rows])


@pytest.mark.parametrize("name", ["bert", "modernbert", *KINDS, "bloom"])
def test_a_pool_of_one_is_a_plain_prompt(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    pool = make(backbone, "pool:1x4")
    prompt = make(backbone, "prompt:4,init=normal")
    with torch.no_grad():
        prompt.groups["prompt"]["vectors"].copy_(pool.groups["pool"]["prompts"][0])
    batch = rows_of(backbone, name)
    found = Stack(backbone, [pool]).run(batch)
    wanted = Stack(backbone, [prompt]).run(batch)
    real = batch.attention_mask.bool()
    close(found.text_hidden[real], wanted.text_hidden[real])
    close(found.last_hidden, wanted.last_hidden)


@pytest.mark.parametrize("spec", SPECS)
def test_retrieval_against_a_loop(tiny: Tiny, spec: str) -> None:
    backbone = tiny("xlmr")
    pool = make(backbone, spec)
    assert isinstance(pool, PromptPool)
    batch = rows_of(backbone, "xlmr")
    batch = TextBatch(batch.input_ids, batch.attention_mask, routes={"task": torch.tensor([0, 1, -1, 1, 0])})
    if not spec.count("oracle"):
        batch = TextBatch(batch.input_ids, batch.attention_mask)
    stack = Stack(backbone, [pool])
    rows = stack.rows(batch)
    found = retrieval.retrieve(stack.slots[0], retrieval.retrievals(stack.slots)[0][1], rows)
    for number in range(5):
        vectors, attention = _slowly(backbone, pool, batch, number)
        close(found.attention[number], attention)
        close(found.vectors[number], vectors)


def _slowly(backbone: Backbone, pool: PromptPool, batch: TextBatch, number: int) -> tuple[Tensor, Tensor]:
    """One text, one key at a time."""
    config = pool.config
    prompts = pool.groups["pool"]["prompts"]
    ids = batch.input_ids[number][batch.attention_mask[number].bool()]
    attention = torch.zeros(config.keys)
    if config.selection == "oracle":
        place = [0, 1, -1, 1, 0][number]
        attention += 1 / config.keys if place < 0 else 0
        if place >= 0:
            attention[place] = 1
    elif config.selection == "random":
        attention[sum((int(i) + 1) * 2654435761 % 2**31 for i in ids) % config.keys] = 1
    else:
        states = backbone.embed(ids.unsqueeze(0))[0].detach()
        if config.query == "mean-pass":
            states = backbone.body(input_ids=ids.unsqueeze(0)).last_hidden_state[0].detach()
        query = states.max(0).values if config.query == "max" else sum(states) / len(states)
        scores = []
        for key in pool.groups["pool"]["key"].detach():
            score = float(sum(a * b for a, b in zip(query.tolist(), key.tolist(), strict=True)))
            if config.similarity == "cosine":
                score /= float(query.norm() * key.norm())
            if config.similarity == "scaled":
                score /= len(query) ** 0.5
            scores.append(score / config.temperature)
        best = sorted(range(config.keys), key=lambda key: -scores[key])
        if config.selection == "top-hard":
            for key in best[: config.top]:
                attention[key] = 1 / config.top
            return torch.cat([prompts[key] for key in best[: config.top]]), attention
        kept = best[: config.top] if config.selection == "top-soft" else best
        weights = torch.tensor([scores[key] for key in kept]).softmax(0)
        attention[kept] = weights
    return sum(float(weight) * prompt for weight, prompt in zip(attention, prompts, strict=True)), attention  # type: ignore[return-value]


def _rms_norm(norm: Any, states: Tensor) -> Tensor:
    scaled: Tensor = states * torch.rsqrt(states.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    return norm.weight * scaled  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "spec", ["pool:4x2,similarity=scaled", "pool:4x2,query=mean-pass", "pool:4x2,selection=top-hard,top=2"]
)
def test_gradients_are_finite_differences(tiny: Tiny, name: str, spec: str) -> None:
    backbone = load_backbone(tiny(name).name, dtype=torch.float64, device="cpu")
    for module in backbone.model.modules():
        # transformers computes these norms in fp32 whatever it is given, and their rounding is larger than the differences.
        if hasattr(module, "variance_epsilon"):
            module.forward = partial(_rms_norm, module)
    pool = make(backbone, spec).to(torch.float64)
    stack = Stack(backbone, [pool]).train()
    batch = rows_of(backbone, name, 3)

    def loss() -> Tensor:
        output = stack.run(batch)
        states = output.text_hidden if output.decoder_hidden is None else output.decoder_hidden
        real = batch.attention_mask.bool() if output.decoder_hidden is None else slice(None)
        own = stack.take_module_loss()
        return states[real].square().mean() + (0 if own is None else own)

    loss().backward()
    generator = torch.Generator().manual_seed(3)
    for tensor in pool.groups["pool"].values():
        direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        assert tensor.grad is not None
        expected = float((tensor.grad * direction).sum())
        step = 1e-6
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                tensor.add_(sign * step * direction)
                with torch.enable_grad():
                    values.append(float(loss().detach()))
                tensor.sub_(sign * step * direction)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-8)
        assert expected != 0


@pytest.mark.parametrize("name", KINDS)
def test_mixed_batches_are_one_text_at_a_time(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    stack = Stack(backbone, [make(backbone, "pool:6x3", role="shared"), make(backbone, "adapter:8")])
    batch = rows_of(backbone, name)
    together = stack.run(batch)
    for number in range(5):
        real = batch.attention_mask[number].bool()
        decoder = None if batch.decoder_input_ids is None else batch.decoder_input_ids[number : number + 1]
        alone = stack.run(
            TextBatch(batch.input_ids[number][real].unsqueeze(0), real[real].long().unsqueeze(0), decoder)
        )
        close(together.text_hidden[number][real], alone.text_hidden[0])
    assert stack.notation == "pool:shared > adapter:topic"


@pytest.mark.parametrize("spec", ["pool:6x3", "pool:6x3,selection=top-hard,top=2", "pool:6x3,selection=top-soft,top=2"])
def test_a_routed_bank_of_pools_is_one_pool_at_a_time(tiny: Tiny, spec: str) -> None:
    backbone = tiny("xlmr")
    pools = [make(backbone, spec, seed=seed, role="language", label=f"l{seed}") for seed in range(2)]
    batch = rows_of(backbone, "xlmr")
    routes = {"language": torch.tensor([1, 0, 1, 1, 0])}
    together = Stack(backbone, [Bank(pools)]).run(TextBatch(batch.input_ids, batch.attention_mask, routes=routes))
    for number in range(5):
        real = batch.attention_mask[number].bool()
        own = Stack(backbone, [pools[int(routes["language"][number])]])
        alone = own.run(TextBatch(batch.input_ids[number][real].unsqueeze(0), real[real].long().unsqueeze(0)))
        close(together.text_hidden[number][real], alone.text_hidden[0])


@pytest.mark.parametrize("name", ["bert", "xlmr", "eurobert", "modernbert"])
def test_positions(tiny: Tiny, name: str) -> None:
    """With positions of their own, or none, the text keeps its positions: without attention to the prompt it is unchanged."""
    backbone = tiny(name)
    batch = rows_of(backbone, name)
    outputs = {
        kind: Stack(backbone, [make(backbone, f"pool:4x3,positions={kind}")]).run(batch).text_hidden
        for kind in ("shift", "own", "none")
    }
    real = batch.attention_mask.bool()
    assert not torch.allclose(outputs["own"][real], outputs["none"][real], atol=1e-4)
    assert not torch.allclose(outputs["shift"][real], outputs["none"][real], atol=1e-4)
    stack = Stack(backbone, [make(backbone, "pool:4x3,positions=own")])
    assembled = stack.assemble(batch, stack.rows(batch))
    assert assembled.positions is not None and backbone.max_length is not None
    length = int(batch.attention_mask[0].sum())
    limit = backbone.max_length
    assert assembled.positions[0][: 3 + length].tolist() == [limit - 3, limit - 2, limit - 1, *range(length)]


def test_no_position_takes_the_position_embedding_out(tiny: Tiny) -> None:
    backbone = tiny("xlmr")
    pool = make(backbone, "pool:1x3,positions=none")
    stack = Stack(backbone, [pool])
    batch = rows_of(backbone, "xlmr", 1)
    seen: list[Tensor] = []
    embeddings = backbone.body.embeddings
    handle = embeddings.LayerNorm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    stack.run(batch)
    handle.remove()
    kind = embeddings.token_type_embeddings.weight[0]
    close(seen[-1][0, :3], pool.groups["pool"]["prompts"][0] + kind)


def test_a_causal_model_does_not_look_ahead(tiny: Tiny) -> None:
    """What a prompt may not see does not change it."""
    stack = Stack(tiny("llama"), [make(tiny("llama"), "pool:6x3")])
    first, second = texts(1, [8])[0], texts(1, [8], seed=5)[0]
    ids, mask = pad([first, first[:4] + second[4:]])
    seen = (torch.arange(8) < 4).long().expand(2, 8)
    found = stack.run(TextBatch(ids, mask, query_mask=seen)).text_hidden
    close(found[0, :4], found[1, :4])
    blind = stack.run(TextBatch(ids, mask)).text_hidden
    assert not torch.allclose(blind[0, :4], blind[1, :4], atol=1e-4)


def test_generation_sees_what_scoring_sees(tiny: Tiny) -> None:
    for name in ("llama", "mt5"):
        backbone = tiny(name)
        stack = Stack(backbone, [make(backbone, "pool:6x3")])
        ids, mask = pad(texts(2, [6]))
        new = stack.generate(ids, mask, max_new_tokens=3, eos_token_id=None if name == "llama" else -1)
        if name == "mt5":
            start = torch.full((2, 1), backbone.decoder_start_id)
            best = stack.logits(ids, mask, torch.cat((start, new[:, :-1]), 1)).argmax(-1)
            assert torch.equal(best, new)
            continue
        whole = torch.cat((ids, new), 1)
        seen = torch.cat((mask, torch.zeros_like(new)), 1)
        output = stack.run(TextBatch(whole, torch.ones_like(whole), query_mask=seen))
        states = output.lm_states[:, 5:-1].flatten(0, 1)
        scores = stack.label_logits(states, torch.arange(backbone.vocabulary_size))
        assert torch.equal(scores.argmax(-1), new.flatten())


def test_dropout_and_stopped_gradients(tiny: Tiny) -> None:
    backbone = tiny("xlmr")
    stack = Stack(backbone, [make(backbone, "pool:6x50,dropout=0.5")])
    batch = rows_of(backbone, "xlmr", 2)

    def vectors() -> Tensor:
        return stack.placed_prompts("encoder", stack.rows(batch), 2)[0].vectors

    still = vectors()
    torch.manual_seed(0)
    stack.train()
    dropped = vectors()
    zero = dropped.abs().sum(-1) == 0
    assert 0.3 < float(zero.float().mean()) < 0.7
    close(dropped[~zero], 2 * still[~zero])
    for stop in (True, False):
        words = backbone.model.get_input_embeddings().weight.requires_grad_(True)
        pool = make(backbone, f"pool:6x3,stop_gradient={stop}")
        own = Stack(backbone, [pool])
        own.placed_prompts("encoder", own.rows(batch), 2)[0].vectors.sum().backward()
        assert (words.grad is None) is stop
        words.requires_grad_(False)
        words.grad = None


def test_saved_and_loaded(tmp_path: Path, tiny: Tiny) -> None:
    for number, name in enumerate(KINDS):
        backbone = tiny(name)
        for spec in (SPECS[0], SPECS[-1]):
            pool = make(backbone, spec, role="shared")
            folder = save_module(pool, tmp_path / f"{number}{spec[:8]}")
            loaded = load_module(folder, backbone)
            assert loaded.config == pool.config and loaded.info.role == "shared"
            batch = rows_of(backbone, name)
            close(Stack(backbone, [loaded]).run(batch).text_hidden, Stack(backbone, [pool]).run(batch).text_hidden)


@pytest.mark.parametrize("spec", [*SPECS, "pool", "pool:8x2,positions=own,placement=after-bos,init=uniform"])
def test_specs_read_back(spec: str) -> None:
    config = parse_module(spec)
    assert parse_module(format_module(config)) == config


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("pool:256", "KEYSxLENGTH"),
        ("pool:0x4", "KEYSxLENGTH"),
        ("pool:4x2,query=middle", "query 'middle'"),
        ("pool:4x2,temperature=0", "temperature"),
        ("pool:4x2,selection=top-hard,top=5", "best 5 of 4"),
        ("pool:4x2,dropout=1", "dropout"),
        ("pool:3x2,selection=oracle,languages=eng_Latn", "1 languages for 3"),
        ("pool:4x2,pull=-1", "pull"),
        ("pool:4x2,keys=3", "unknown option 'keys'"),
    ],
)
def test_wrong_options_are_one_sentence(spec: str, said: str) -> None:
    with pytest.raises(IsoglossError, match=said.replace("(", r"\(")):
        parse_module(spec)


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("xlmr", "pool:4x2,selection=oracle", "needs its languages"),
        ("llama", "pool:4x2,query=first-pass", "says nothing of the text"),
        ("mt5", "pool:4x2,positions=none", "positions=shift"),
        ("llama", "pool:4x2,positions=own", "positions=shift"),
        ("xlmr", "pool:4x64", "shorten"),
    ],
)
def test_what_does_not_fit_a_backbone(tiny: Tiny, name: str, spec: str, said: str) -> None:
    with pytest.raises(IsoglossError, match=said):
        create_module(parse_module(spec), tiny(name))


def test_the_oracle_is_told_the_language(tiny: Tiny) -> None:
    backbone = tiny("xlmr")
    pool = make(backbone, SPECS[-1], role="shared")
    stack = Stack(backbone, [pool])
    routes = stack.language_routes(["deu_Latn", ("eng_Latn", "deu_Latn"), "fin_Latn"])
    batch = rows_of(backbone, "xlmr", 3)
    batch = TextBatch(batch.input_ids, batch.attention_mask, routes=routes)
    found = retrieval.attention(stack, batch)["shared"]
    close(found, torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]]))
    assert Stack(backbone, [make(backbone, "pool:2x3")]).language_routes(["deu_Latn"]) == {}


def test_the_oracle_knows_languages_by_any_name() -> None:
    config = parse_module("pool:2x2,selection=oracle,languages=en+German")
    assert config == parse_module("pool:2x2,selection=oracle,languages=eng_Latn+deu_Latn")
    with pytest.raises(IsoglossError, match="2 languages for 2 prompts"):
        parse_module("pool:2x2,selection=oracle,languages=en+eng")
    with pytest.raises(IsoglossError, match="Unknown language 'qqq'"):
        parse_module("pool:1x2,selection=oracle,languages=qqq")


def test_the_pull_loss_is_minus_the_cosines(tiny: Tiny) -> None:
    backbone = tiny("eurobert")
    pool = make(backbone, "pool:6x2,selection=top-hard,top=2,pull=0.5")
    assert isinstance(pool.config, PoolConfig)
    stack = Stack(backbone, [pool]).train()
    batch = rows_of(backbone, "eurobert", 3)
    stack.run(batch)
    loss = stack.take_module_loss()
    assert loss is not None and stack.take_module_loss() is None
    total = 0.0
    for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
        query = backbone.embed(ids[mask.bool()].unsqueeze(0))[0].mean(0)
        cosines = torch.cosine_similarity(query.unsqueeze(0), pool.groups["pool"]["key"], dim=1)
        total -= 0.5 * float(cosines.detach().topk(2).values.sum())
    assert float(loss.detach()) == pytest.approx(total / 3, rel=1e-5)
    stack.eval()
    stack.run(batch)
    assert stack.take_module_loss() is None
