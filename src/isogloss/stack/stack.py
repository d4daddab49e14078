"""The stack: what training, scoring and generation all run through."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import RetrievalAction, TransferModule
from isogloss.stack import head, retrieval
from isogloss.stack.assembly import Assembled, PlacedPrompt, assemble, gather_positions
from isogloss.stack.attach import Attachment
from isogloss.stack.bank import Bank, Rows, name_slots, refuse_foreign
from isogloss.stack.batch import StackOutput, TextBatch
from isogloss.stack.generation import generate
from isogloss.stack.notation import Term, format_notation
from isogloss.stack.patch import BackbonePatch
from isogloss.stack.prefix import run_with_prefix
from isogloss.stack.prompts import check_prompts, placed_prompts, prompt_actions, prompt_length
from isogloss.stack.suffix import run_with_suffix, suffix_pays


class Stack(nn.Module):
    """Ordered modules on one backbone.

    Args:
        backbone: From `load_backbone`.
        modules: Modules or banks, first one nearest to the text: language part, then task part.
        prompt_fusion: What several prompts at one place do: stand behind one another, or be averaged (S1's `avg`).
        double_language_prompt: Feed the language prompt twice in training and once in generation, as the published LP+TP
            code did (papers.md 1.5a). Only to study that quirk.
        backbone_pool: Whether a backbone that was pre-trained with a prompt pool uses it, before all else.

    Raises:
        IsoglossError: A module was made for another backbone, prompts leave no room for text, or a site is missing.
    """

    def __init__(
        self,
        backbone: Backbone,
        modules: Sequence[TransferModule | Bank] = (),
        *,
        prompt_fusion: Literal["concatenate", "average"] = "concatenate",
        double_language_prompt: bool = False,
        backbone_pool: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.model = backbone.model
        self.prompt_fusion = prompt_fusion
        self.double_language_prompt = double_language_prompt
        pool = retrieval.backbone_pool(backbone) if backbone_pool else None
        self.slots = name_slots(modules if pool is None else [pool, *modules])
        self._losses: list[Tensor] = []
        self.members = nn.ModuleList(module for slot in self.slots for module in slot.modules)
        for module in self.members:
            refuse_foreign(module, backbone)  # type: ignore[arg-type]
        self._attachment = Attachment(backbone, self.slots)
        check_prompts(self)
        states: list[Any] = [module.backbone_state for module in self.members if module.backbone_state]
        if len(states) > 1:
            raise IsoglossError("Two modules of the stack carry changed backbone weights; only one can.")
        self._patch = BackbonePatch(self.model, states[0]) if states else None
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Switches the mode; what is frozen always computes as in evaluation (no dropout of a frozen backbone, say)."""
        super().train(mode)
        parts: list[nn.Module] = [self.model, *self.members]
        for part in parts:
            if mode and not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        self._modes = [part.training for part in parts]
        return self

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def notation(self) -> str:
        """`prompt:slk_Latn > adapter:topic`; banks show their members in braces."""
        terms = []
        for slot in self.slots:
            labels = [module.info.label for module in slot.modules]
            terms.append(Term(slot.single.method, labels[0] if len(labels) == 1 else "{" + ",".join(labels) + "}"))
        return format_notation(tuple(terms))

    def prompt_length(self, side: str | None = None) -> int:
        """Prompt vectors on a side (default: where the text goes in)."""
        side = side or self.backbone.sites.sides[0]
        return prompt_length(self, side)

    @property
    def text_budget(self) -> int | None:
        """Tokens that a text may have, special tokens included; None without a limit."""
        limit = self.backbone.max_length
        return None if limit is None else limit - self.prompt_length()

    def parameters_to_train(self) -> list[nn.Parameter]:
        """Every parameter with gradients on, of modules and backbone."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    # -- forward --------------------------------------------------------------------------------------------------

    def run(self, batch: TextBatch) -> StackOutput:
        """Runs the batch and returns last hidden states (no LM head)."""
        rows = self.rows(batch)
        if self._prefix_pays(rows, batch.input_ids.shape[0]):
            return run_with_prefix(self, batch, rows)
        if suffix_pays(self, batch):
            return run_with_suffix(self, batch, rows)
        with self.attached(rows):
            if self.backbone.kind == "encoder-decoder":
                return self._run_encoder_decoder(batch, rows)
            assembled = self.assemble(batch, rows)
            return self.output(assembled, self._run_body(assembled, batch), batch, rows)

    def forward(self, batch: TextBatch) -> StackOutput:
        """Same as `run`, for wrappers that call modules."""
        return self.run(batch)

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor | None = None,
        routes: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Last hidden states at text positions, [B, T, d]; of the decoder, [B, S, d], when decoder ids are given."""
        output = self.run(TextBatch(input_ids, attention_mask, decoder_input_ids, routes=routes))
        return output.text_hidden if output.decoder_hidden is None else output.decoder_hidden

    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor | None = None,
        routes: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Full logits [B, T, V] at text positions ([B, S, V] at decoder positions). For inspection: nothing else builds them.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T].
            decoder_input_ids: [B, S], needed by encoder-decoders.
            routes: Slot name -> [B], for banks.
        """
        if self.backbone.kind == "encoder-decoder" and decoder_input_ids is None:
            raise IsoglossError("The logits of an encoder-decoder need decoder_input_ids.")
        output = self.run(TextBatch(input_ids, attention_mask, decoder_input_ids, routes=routes))
        with self.patched():
            states = output.lm_states
            return head.chunk_logits(states, self.backbone.head_weight.to(states.dtype), *self._head_rest())

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        routes: Mapping[str, Tensor] | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> Tensor:
        """Generates token ids [B, S], new tokens only, padded on the right; greedy unless options say otherwise.

        The input embeddings are assembled by the same function as in `run`.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T].
            routes: Slot name -> [B], for banks.
            max_new_tokens: Upper bound of S.
            **options: Passed to `transformers`' `generate` (`num_beams`, `do_sample`, ...).
        """
        batch = TextBatch(input_ids, attention_mask, routes=routes)
        return generate(self, batch, self.rows(batch), max_new_tokens, options)

    # -- prompts that their text chooses ----------------------------------------------------------------------------

    @property
    def retrieves(self) -> bool:
        """Whether a prompt of the stack is chosen by the text."""
        return bool(retrieval.retrievals(self.slots))

    def language_routes(self, languages: Sequence[str | Sequence[str]]) -> dict[str, Tensor]:
        """Routes for modules that are told their text's language; empty when none asks. See `retrieval.language_routes`."""
        return retrieval.language_routes(self.slots, languages)

    def take_module_loss(self) -> Tensor | None:
        """The modules' own loss (a pull loss, say), mean over the rows run in training mode since the last call; None without."""
        found, self._losses = self._losses, []
        return torch.cat(found).mean() if found else None

    # -- LM head --------------------------------------------------------------------------------------------------

    def lm_loss(self, hidden: Tensor, labels: Tensor, each: Tensor | None = None) -> Tensor:
        """Sum of cross-entropies over the whole vocabulary.

        Args:
            hidden: [N, d], from `StackOutput.at` or `.lm_last`.
            labels: [N].
            each: [N], filled with the single cross-entropies, without gradient.
        """
        with self.patched():
            bias, softcap = self._head_rest()
            return head.cross_entropy_sum(hidden, self.backbone.head_weight, bias, labels, softcap, each)

    def label_logits(self, hidden: Tensor, token_ids: Tensor) -> Tensor:
        """Logits [N, K] of K tokens only; multiplies by their rows of the vocabulary matrix and no others."""
        with self.patched():
            bias, softcap = self._head_rest()
            weight = self.backbone.head_weight[token_ids].to(hidden.dtype)
            return head.chunk_logits(hidden, weight, None if bias is None else bias[token_ids], softcap)

    def vocabulary_logsumexp(self, hidden: Tensor) -> Tensor:
        """Exact normaliser [N] of the full-vocabulary softmax, chunked."""
        with self.patched():
            return head.logsumexp(hidden, self.backbone.head_weight, *self._head_rest())

    def correct(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Whether the most likely token is the label, [N] bool."""
        with self.patched():
            return head.best_tokens(hidden.detach(), self.backbone.head_weight, *self._head_rest()) == labels

    def _head_rest(self) -> tuple[Tensor | None, float | None]:
        return self.backbone.head_bias, self.backbone.logit_softcap

    # -- parts that generation and the prefix path share -----------------------------------------------------------

    @contextmanager
    def attached(self, rows: Rows) -> Iterator[None]:
        """Within it the backbone computes with the stack's modules, under the routes of one batch."""
        # Another stack on this backbone may have changed the mode of what the two share (dropout).
        if self._modes != [part.training for part in (self.model, *self.members)]:
            self.train(self.training)
        with self.patched(), self._attachment.attached(rows):
            yield

    def embedding_generated(self, rows: Rows) -> AbstractContextManager[None]:
        """Within it, tokens that a decoder generates are embedded as text is (invertible adapters)."""
        return self._attachment.embedding_words(rows)

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Within it the backbone has the changed weights that a module of the stack carries, if one does."""
        with self._patch.applied() if self._patch else nullcontext():
            yield

    def assemble(self, batch: TextBatch, rows: Rows, *, pad_left: bool = False, with_prompts: bool = True) -> Assembled:
        """Text and prompts of the text side in one padded sequence."""
        backbone = self.backbone
        embeddings = backbone.embed(batch.input_ids)
        if backbone.sites.embedding_output is None:
            embeddings = self._attachment.embed(embeddings, rows)
        tokenizer = backbone.tokenizer
        first_ids = [
            value
            for value in (
                getattr(tokenizer, "bos_token_id", None),
                getattr(tokenizer, "cls_token_id", None),
                getattr(backbone.config, "bos_token_id", None),
            )
            if isinstance(value, int)
        ]
        assembled = assemble(
            embeddings,
            batch.input_ids,
            batch.attention_mask,
            self.placed_prompts(backbone.sites.sides[0], rows, batch.input_ids.shape[0]) if with_prompts else [],
            first_ids=first_ids,
            end_ids=backbone.eos_ids,
            pad_left=pad_left,
            position_limit=backbone.max_length or 0,
        )
        limit = backbone.max_length if backbone.family.absolute_positions else None
        total = assembled.embeddings.shape[1] + (0 if with_prompts else self.prompt_length())
        if limit is not None and total > limit:
            raise IsoglossError(
                f"The longest text takes {total} positions with its prompts, but {backbone.name} has {limit}; cut texts to "
                f"{self.text_budget} tokens."
            )
        return assembled

    def placed_prompts(self, side: str, rows: Rows, batch_size: int) -> list[PlacedPrompt]:
        """The prompts of one side with their vectors for this batch, fused as the stack says."""
        found, losses = placed_prompts(self, side, rows, batch_size)
        if self.training and torch.is_grad_enabled():
            self._losses += losses
        return found

    def output(self, assembled: Assembled, states: Tensor, batch: TextBatch, rows: Rows) -> StackOutput:
        """Picks text positions out of the assembled sequence's states."""
        index = torch.arange(states.shape[0], device=states.device)
        return StackOutput(
            text_hidden=gather_positions(states, assembled.text_positions),
            last_hidden=states[index, assembled.last_positions],
            attention_mask=batch.attention_mask,
            to_head=self.head_map(rows),
        )

    def head_map(self, rows: Rows) -> Callable[[Tensor, Tensor], Tensor]:
        """The map from hidden states [N, d] of rows [N] to what the vocabulary matrix multiplies.

        Inverted invertible adapters come last, as the embeddings that they undo are that matrix.
        """

        def to_head(states: Tensor, row_of: Tensor) -> Tensor:
            with self.patched():
                states = self.backbone.head_input(states)
            return self._attachment.before_head(states, rows, row_of) if self._attachment.inverts else states

        return to_head

    @property
    def inverts(self) -> bool:
        """Whether an invertible adapter stands before the LM head."""
        return self._attachment.inverts

    def invert(self, states: Tensor, rows: Rows) -> Tensor:
        """Inverts the invertible adapters on head inputs [B, S, d]."""
        row_of = torch.arange(states.shape[0], device=states.device).repeat_interleave(states.shape[1])
        return self._attachment.before_head(states.flatten(0, 1), rows, row_of).view(states.shape)

    def position_ids(self, mask: Tensor) -> dict[str, Tensor]:
        """Keyword arguments that number the real tokens of [B, N] from 0, for models that take them."""
        if not self.backbone.family.takes_position_ids:
            return {}
        ranks = (mask.cumsum(1) - 1).clamp(min=0)
        return {"position_ids": ranks + self.backbone.family.position_offset}

    def encode(self, batch: TextBatch, rows: Rows) -> tuple[Tensor, Assembled]:
        """Runs the encoder of an encoder-decoder: states [B, N, d] of the assembled sequence."""
        assembled = self.assemble(batch, rows)
        states = self.backbone.encoder(
            inputs_embeds=assembled.embeddings, attention_mask=assembled.attention_mask
        ).last_hidden_state
        return states, assembled

    # -- inside ---------------------------------------------------------------------------------------------------

    def rows(self, batch: TextBatch) -> Rows:
        """The routes of a batch, with what its texts offer to prompts that are chosen by them."""
        rows = Rows(self.slots, dict(batch.routes or {}), batch.input_ids.shape[0])
        if self.retrieves:
            rows.text = retrieval.read_text(self, batch)
        return rows

    def _run_body(self, assembled: Assembled, batch: TextBatch) -> Tensor:
        mask = assembled.attention_mask
        extra: dict[str, Any] = self.position_ids(mask)
        if assembled.positions is not None:
            extra["position_ids"] = assembled.positions + self.backbone.family.position_offset
        if batch.token_type_ids is not None:
            segments = torch.zeros_like(mask)
            extra["token_type_ids"] = segments.scatter(
                1, assembled.text_positions, batch.token_type_ids * batch.attention_mask
            )
        if self.backbone.kind == "decoder":
            extra["use_cache"] = False
        return self.backbone.body(inputs_embeds=assembled.embeddings, attention_mask=mask, **extra).last_hidden_state  # type: ignore[no-any-return]

    def _run_encoder_decoder(self, batch: TextBatch, rows: Rows) -> StackOutput:
        states, assembled = self.encode(batch, rows)
        output = self.output(assembled, states, batch, rows)
        if batch.decoder_input_ids is None:
            return output
        batch_size = batch.input_ids.shape[0]
        embeddings = self.backbone.embed(batch.decoder_input_ids)
        prompts = [prompt.vectors.to(embeddings.dtype) for prompt in self.placed_prompts("decoder", rows, batch_size)]
        length = sum(vectors.shape[-2] for vectors in prompts)
        if prompts:
            embeddings = torch.cat(
                [vectors.expand(batch_size, *vectors.shape[-2:]) for vectors in prompts] + [embeddings], dim=1
            )
        decoded = self.backbone.decoder(
            inputs_embeds=embeddings,
            encoder_hidden_states=states,
            encoder_attention_mask=assembled.attention_mask,
            use_cache=False,
        ).last_hidden_state
        return StackOutput(
            output.text_hidden, output.last_hidden, output.attention_mask, decoded[:, length:], output.to_head
        )

    def _prefix_pays(self, rows: Rows, batch_size: int) -> bool:
        actions = prompt_actions(self.slots, "decoder")
        if self.backbone.kind != "decoder" or not self.backbone.family.prefix_cache or not actions:
            return False
        if any(action.placement != "before" or isinstance(action, RetrievalAction) for _, action in actions):
            return False
        _, which = rows.combinations()
        return which is None or int(which.max()) + 1 < batch_size
