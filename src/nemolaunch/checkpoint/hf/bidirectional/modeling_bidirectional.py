"""A Llama that attends to both sides of a token, as it was pretrained to predict masked tokens.

Load it with `trust_remote_code=True`: AutoModelForMaskedLM gives logits of masked tokens, AutoModel hidden states
to build embeddings or classifiers on. Needs transformers 4.48 or newer 4.x.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.modeling_outputs import BaseModelOutputWithPast, MaskedLMOutput


class LlamaBidirectionalConfig(LlamaConfig):
    """A Llama's configuration; a type of its own, so that nothing loads the weights as a causal model."""

    model_type = "llama_bidirectional"

    def __init__(self, is_causal: bool = False, **kwargs: object) -> None:
        if is_causal:
            raise ValueError("is_causal: this model was trained to attend to both sides")
        super().__init__(**{"use_cache": False, **kwargs})
        self.is_causal = False


class LlamaBidirectionalModel(LlamaModel):
    """The layers, with attention to all tokens that are not padding."""

    config_class = LlamaBidirectionalConfig
    _supports_flex_attn = False  # it would need the mask as a block mask

    def __init__(self, config: LlamaBidirectionalConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            if hasattr(module, "is_causal"):
                module.is_causal = False  # type: ignore[assignment]  # what flash attention goes by

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> BaseModelOutputWithPast:
        """As the causal model's; `attention_mask` [batch, sequence] is 0 for padding. There is no cache."""
        if self.config._attn_implementation != "flash_attention_2":
            like = inputs_embeds[..., 0] if inputs_embeds is not None else input_ids
            assert like is not None, "give input_ids or inputs_embeds"
            attention_mask = self._visible(attention_mask, like)
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **{**kwargs, "use_cache": False},
        )

    def _visible(self, attention_mask: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
        """What is added to scores, [batch, 1, sequence, sequence]. Transformers takes four dimensions as they are."""
        if attention_mask is not None and attention_mask.dim() == 4:
            return attention_mask
        batch, length = like.shape
        mask = torch.zeros(batch, 1, 1, length, dtype=self.dtype, device=like.device)
        if attention_mask is not None:
            hidden = attention_mask[:, None, None, :] == 0
            mask = mask.masked_fill(hidden.to(mask.device), torch.finfo(mask.dtype).min)
        return mask.expand(batch, 1, length, length)


class LlamaBidirectionalForMaskedLM(LlamaForCausalLM):
    """Logits of the token in each place itself, not of the next one."""

    config_class = LlamaBidirectionalConfig
    _supports_flex_attn = False

    def __init__(self, config: LlamaBidirectionalConfig) -> None:
        super().__init__(config)
        self.model = LlamaBidirectionalModel(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: object,
    ) -> MaskedLMOutput:
        """`labels` [batch, sequence] are the original ids where a loss is wanted, -100 elsewhere; not shifted."""
        kwargs.pop("return_dict", None)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        logits = self.lm_head(out.last_hidden_state)
        loss: torch.FloatTensor | None = None
        if labels is not None:
            wanted = labels.reshape(-1).to(logits.device)
            loss = nn.functional.cross_entropy(logits.reshape(-1, logits.size(-1)).float(), wanted)  # type: ignore[assignment]
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=out.hidden_states, attentions=out.attentions
        )
