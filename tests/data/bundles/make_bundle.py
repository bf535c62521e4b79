"""Makes a tiny bundle beside this file, `format-N`, and what transformers answers with the same weights.

Run it once for each format, with an exporter that writes it:
`PYTHONPATH=exporter:runtime python make_bundle.py format-N`. `answers.npz` is the same for all of them. That of format
2 is for the CPU; that of format 3 is for CUDA, with the kind of cache that is new in it.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import (
    BertConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

from speech_export import PrecisionOptions, export

VOCABULARY, START, EOS, PAD = 60, 1, 2, 3
SPREAD = 0.2
RATE = 16_000
CLIPS = ((150, 3000), (1500, 1800))
"""Tones that have different answers: frequency in Hz, and number of samples."""
MAX_LENGTH, BEAMS = 16, 4


def random_model() -> SpeechEncoderDecoderModel:
    """Random weights, spread so far that no two tokens are nearly alike."""
    encoder = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 3, 2),
        conv_stride=(5, 2, 2),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        initializer_range=SPREAD,
    )
    decoder = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        initializer_range=SPREAD,
        vocab_size=VOCABULARY,
        is_decoder=True,
        add_cross_attention=True,
        bos_token_id=START,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    torch.manual_seed(0)
    model = SpeechEncoderDecoderModel(SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)).eval()
    model.generation_config = GenerationConfig(decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=EOS)
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<unk>": 0, "<s>": START, "</s>": EOS, "<pad>": PAD} | {f"▁w{i}": i for i in range(4, VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def answers(model: SpeechEncoderDecoderModel, extractor: Wav2Vec2FeatureExtractor) -> dict[str, Any]:
    """Audio of each clip as int16, and the tokens that transformers generates for it alone."""
    found = {}
    for clip, (frequency, count) in enumerate(CLIPS):
        audio = (8000 * np.sin(2 * np.pi * frequency * np.arange(count) / RATE)).astype(np.int16)
        inputs = extractor(audio.astype(np.float32) / 2**15, sampling_rate=RATE, return_tensors="pt")
        found[f"audio_{clip}"] = audio
        for name, beams in (("greedy", 1), ("beams", BEAMS)):
            tokens = model.generate(**inputs, num_beams=beams, max_length=MAX_LENGTH)
            found[f"{name}_{clip}"] = tokens[0].numpy()
    return found


if __name__ == "__main__":
    here = Path(__file__).parent
    model, extractor = random_model(), Wav2Vec2FeatureExtractor(return_attention_mask=True)
    for_cuda = PrecisionOptions(target="cuda")
    export(model, here / sys.argv[1], feature_extractor=extractor, tokenizer=tokenizer(), precision=for_cuda)
    arrays: dict[str, Any] = answers(model, extractor)
    np.savez_compressed(here / "answers.npz", **arrays)
