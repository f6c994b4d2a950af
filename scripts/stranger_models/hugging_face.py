"""Models of Hugging Face transformers, from small configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stranger_models.model import NUM_CLASSES, NUM_EXAMPLES, Stranger, Update

Batch = Callable[[], dict[str, Tensor]]

VOCABULARY = 199
NUM_TOKENS = 24


def _tokens() -> dict[str, Tensor]:
    ids = torch.randint(4, VOCABULARY, (NUM_EXAMPLES, NUM_TOKENS))
    return {"input_ids": ids, "labels": ids.clone()}


def _tokens_to_classify() -> dict[str, Tensor]:
    labels = torch.arange(NUM_EXAMPLES) % NUM_CLASSES
    return {"input_ids": _tokens()["input_ids"], "labels": labels}


def _images() -> dict[str, Tensor]:
    labels = torch.arange(NUM_EXAMPLES) % NUM_CLASSES
    return {"pixel_values": torch.randn(NUM_EXAMPLES, 3, 32, 32), "labels": labels}


def _sound() -> dict[str, Tensor]:
    labels = torch.arange(NUM_EXAMPLES) % NUM_CLASSES
    return {"input_values": torch.randn(NUM_EXAMPLES, 2000), "labels": labels}


def _model(
    family: str,
    task: str,
    batch: Batch,
    readout: str,
    blocks: str,
    *,
    config: str = "",
    **settings: Any,
) -> Stranger:
    def make() -> tuple[nn.Module, Update]:
        import transformers

        configuration = getattr(transformers, f"{config or family}Config")(**settings)
        model = getattr(transformers, family + task)(configuration)
        inputs = batch()
        return model.train(), lambda net: net(**inputs).loss

    return Stranger(f"transformers {family}{task}", make, blocks, (readout,))


_LM = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BODY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
_CLASSES = {"num_labels": NUM_CLASSES}
_HEAD = "lm_head.weight"

HUGGING_FACE = (
    _model("GPT2", "LMHeadModel", _tokens, _HEAD, r"transformer\.h\.\d",
           **_LM, n_embd=64, n_layer=4, n_head=4),
    _model("Llama", "ForCausalLM", _tokens, _HEAD, r"model\.layers\.\d", **_LM, **_BODY),
    _model("Bert", "ForSequenceClassification", _tokens_to_classify, "classifier.weight",
           r"bert\.encoder\.layer\.\d", **_LM, **_BODY, **_CLASSES),
    _model("T5", "ForConditionalGeneration", _tokens, _HEAD, r"\w+\.block\.\d\.layer\.\d",
           vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=4,
           decoder_start_token_id=0, pad_token_id=0),
    _model("ViT", "ForImageClassification", _images, "classifier.weight",
           r"vit\.\w*\.?layers?\.\d", image_size=32, patch_size=8, **_BODY, **_CLASSES),
    _model("Mamba", "ForCausalLM", _tokens, _HEAD, r"backbone\.layers\.\d",
           **_LM, hidden_size=64, num_hidden_layers=4),
    _model("Mixtral", "ForCausalLM", _tokens, _HEAD, r"model\.layers\.\d",
           **_LM, **_BODY, num_key_value_heads=2, num_local_experts=4),
    _model("Wav2Vec2", "ForSequenceClassification", _sound, "classifier.weight",
           r"wav2vec2\.encoder\.layers\.\d", **_BODY, **_CLASSES, conv_dim=(32, 32, 32),
           conv_stride=(5, 2, 2), conv_kernel=(10, 3, 3), num_conv_pos_embeddings=16,
           num_conv_pos_embedding_groups=4, classifier_proj_size=32, mask_time_prob=0.0),
    _model("DistilBert", "ForSequenceClassification", _tokens_to_classify, "classifier.weight",
           r"distilbert\.transformer\.layer\.\d", vocab_size=VOCABULARY, dim=64, hidden_dim=128,
           n_layers=4, n_heads=4, **_CLASSES),
    _model("Albert", "ForSequenceClassification", _tokens_to_classify, "classifier.weight",
           r"albert\.encoder\.albert_layer_groups\.0\.albert_layers\.0",
           **_LM, **_BODY, embedding_size=32, **_CLASSES),
    _model("Qwen2", "ForCausalLM", _tokens, _HEAD, r"model\.layers\.\d",
           **_LM, **_BODY, num_key_value_heads=2),
    _model("OPT", "ForCausalLM", _tokens, _HEAD, r"model\.decoder\.layers\.\d",
           **_LM, hidden_size=64, ffn_dim=128, num_hidden_layers=4, num_attention_heads=4,
           word_embed_proj_dim=64),
    _model("Bart", "ForConditionalGeneration", _tokens, _HEAD, r"model\.(en|de)coder\.layers\.\d",
           vocab_size=VOCABULARY, d_model=64, encoder_layers=3, decoder_layers=3,
           encoder_ffn_dim=128, decoder_ffn_dim=128, encoder_attention_heads=4,
           decoder_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
           decoder_start_token_id=2),
    _model("GPTNeoX", "ForCausalLM", _tokens, _HEAD, r"gpt_neox\.layers\.\d",
           **_LM, **_BODY),
    _model("Swin", "ForImageClassification", _images, "classifier.weight",
           r"swin\.encoder\.layers\.\d\.blocks\.\d", image_size=32, patch_size=4, embed_dim=24,
           depths=(2, 2), num_heads=(2, 4), window_size=4, **_CLASSES),
)  # fmt: skip
