"""Make the Flax checkpoints beside this file, with the answers of Flax itself.

Run in an environment of its own, since transformers 5 has no Flax:
`pip install "transformers==4.57.6" flax==0.12.8 "jax[cpu]==0.10.2" "numpy<2.3"`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import (
    BertConfig,
    FlaxSpeechEncoderDecoderModel,
    GPT2Config,
    PretrainedConfig,
    RobertaConfig,
    SpeechEncoderDecoderConfig,
    Wav2Vec2Config,
)

VOCABULARY, START, PAD, EOS = 40, 0, 1, 2
SPREAD = 0.4
SAMPLES, TOKENS, MAX_LENGTH = 400, 6, 12
TOKEN_IDS = {"bos_token_id": START, "pad_token_id": PAD, "eos_token_id": EOS}
DECODER = {"vocab_size": VOCABULARY, "is_decoder": True, "add_cross_attention": True, **TOKEN_IDS}
BERT = {
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
    **DECODER,
}
DECODERS = {
    "bert": (BertConfig(**BERT), jnp.float32),
    "gpt2": (GPT2Config(n_embd=12, n_layer=1, n_head=2, n_positions=24, n_inner=16, **DECODER), jnp.bfloat16),
    "roberta": (RobertaConfig(**BERT), jnp.float32),
}


def encoder_config() -> Wav2Vec2Config:
    """The least that Flax can do: layer norm before each layer, 20 samples a frame; with an adapter."""
    return Wav2Vec2Config(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        conv_dim=(4, 4),
        conv_kernel=(10, 4),
        conv_stride=(5, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        add_adapter=True,
        num_adapter_layers=1,
    )


def save(directory: Path, decoder_config: PretrainedConfig, dtype: jnp.dtype) -> None:
    """Save a random model and its answers; no weight is at the 0 or 1 where Flax starts it."""
    random = np.random.default_rng(0)
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder_config(), decoder_config)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = START, PAD, EOS
    model = FlaxSpeechEncoderDecoderModel(config, input_shape=((1, SAMPLES), (1, TOKENS)))
    weights = {
        path: jnp.asarray(np.asarray(array) + random.normal(0, SPREAD, array.shape)).astype(dtype)
        for path, array in flatten_dict(model.params).items()
    }
    model.params = unflatten_dict(weights)
    model.save_pretrained(directory)
    model.params = unflatten_dict({path: array.astype(jnp.float32) for path, array in weights.items()})

    mask = np.ones((2, SAMPLES), np.int64)
    mask[1, 260:] = 0
    inputs = (random.standard_normal(mask.shape) * mask).astype(np.float32)
    tokens = random.integers(EOS + 1, VOCABULARY, (2, TOKENS))
    tokens[:, 0] = START
    np.savez_compressed(
        directory / "oracle.npz",
        input_values=inputs,
        attention_mask=mask,
        decoder_input_ids=tokens,
        logits=model(inputs, attention_mask=mask, decoder_input_ids=tokens).logits,
        greedy=model.generate(inputs, max_length=MAX_LENGTH, num_beams=1).sequences,  # with a mask, Flax fails
    )


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    for name, (config, dtype) in DECODERS.items():
        save(Path(__file__).with_name(name), config, dtype)
