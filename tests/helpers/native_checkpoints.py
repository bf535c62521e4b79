"""Checkpoints of tiny speech models on disk, as people hold them: with feature extractor and tokenizer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CanaryProcessor,
    CohereAsrFeatureExtractor,
    CohereAsrProcessor,
    GenerationConfig,
    MoonshineStreamingProcessor,
    ParakeetFeatureExtractor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    SeamlessM4TConfig,
    SeamlessM4TFeatureExtractor,
    SeamlessM4TModel,
    SeamlessM4TProcessor,
    SeamlessM4TTokenizer,
    SeamlessM4Tv2Config,
    SeamlessM4Tv2Model,
    Speech2TextFeatureExtractor,
    Speech2TextProcessor,
    SpeechT5FeatureExtractor,
    SpeechT5Processor,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
    WhisperFeatureExtractor,
    WhisperProcessor,
)

from composites import VOCABULARY, randomise
from native_models import native, whisper_tokenizer
from vocabularies import TOKENIZERS

CONTEXT = "<|startofcontext|>"
"""Start token of Canary."""
NEMO_TOKENS = (
    *("▁", CONTEXT, "<|startoftranscript|>", "<|emo:undefined|>", "<|en|>", "<|de|>", "<|fr|>"),
    *("<|pnc|>", "<|nopnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>"),
)
"""Special tokens of Canary and of Cohere ASR."""
CANARY_TEMPLATE = (
    "{% set request = messages[0]['content'][-1] %}<|startofcontext|><|startoftranscript|><|emo:undefined|>"
    "<|{{ request['source_language'] }}|><|{{ request['target_language'] }}|>"
    "{{ '<|pnc|>' if request['punctuation'] else '<|nopnc|>' }}<|noitn|><|notimestamp|><|nodiarize|>"
)
"""Chat template of Canary, without its parts that few prompts have."""
SEAMLESS_LANGUAGES = ("eng", "deu", "fra")
_LANGUAGES_OF_SEAMLESS = ("text_decoder_lang_to_code_id", "t2u_lang_code_to_id", "vocoder_lang_code_to_id")
_TOKENS = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
_SPEECH_OF_SEAMLESS: dict[str, Any] = {
    "lang_embed_dim": 8,
    "spkr_embed_dim": 8,
    "unit_embed_dim": 16,
    "upsample_initial_channel": 32,
    "t2u_encoder_layers": 1,
    "t2u_decoder_layers": 1,
    "t2u_encoder_ffn_dim": 8,
    "t2u_decoder_ffn_dim": 8,
}


def word_tokenizer(special: Sequence[str] = (), **settings: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of as many words as the tiny models have, with `special` tokens among them."""
    names = ["<unk>", "<s>", "</s>", "<pad>", *special]
    names += [f"▁w{i}" for i in range(len(names), VOCABULARY)]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.Metaspace()
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, extra_special_tokens=list(special), **tokens, **settings)


def _seamless_tokenizer() -> SeamlessM4TTokenizer:
    languages = [f"__{language}__" for language in SEAMLESS_LANGUAGES]
    names = ["<pad>", "<unk>", "<s>", "</s>", *(f"▁w{i}" for i in range(4, VOCABULARY - len(languages)))]
    vocabulary = {name: i for i, name in enumerate([*names, *languages])}
    return SeamlessM4TTokenizer(vocab=vocabulary, src_lang="eng", tgt_lang="eng", additional_special_tokens=languages)


PROCESSORS: dict[str, Callable[[Path], ProcessorMixin]] = {
    "whisper": lambda _: WhisperProcessor(
        WhisperFeatureExtractor(feature_size=20, chunk_length=1, n_fft=400, hop_length=160), whisper_tokenizer()
    ),
    "speech_to_text": lambda path: Speech2TextProcessor(
        Speech2TextFeatureExtractor(feature_size=24, num_mel_bins=24), TOKENIZERS["speech-to-text"](path)
    ),
    "speecht5": lambda path: SpeechT5Processor(SpeechT5FeatureExtractor(), TOKENIZERS["speecht5"](path)),
    "moonshine": lambda _: Wav2Vec2Processor(
        Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True), word_tokenizer()
    ),
    "moonshine_streaming": lambda _: MoonshineStreamingProcessor(
        Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True), word_tokenizer()
    ),
    "canary": lambda _: CanaryProcessor(
        ParakeetFeatureExtractor(feature_size=24), word_tokenizer(NEMO_TOKENS), chat_template=CANARY_TEMPLATE
    ),
    "cohere_asr": lambda _: CohereAsrProcessor(CohereAsrFeatureExtractor(feature_size=24), word_tokenizer(NEMO_TOKENS)),
    "seamless_m4t": lambda _: SeamlessM4TProcessor(
        SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20), _seamless_tokenizer()
    ),
}
PROCESSORS["seamless_m4t_v2"] = PROCESSORS["seamless_m4t"]
"""Processors that transformers saves beside the models, by model type; some need a directory for files."""

_WHOLE = {
    "seamless_m4t": (SeamlessM4TModel, SeamlessM4TConfig),
    "seamless_m4t_v2": (SeamlessM4Tv2Model, SeamlessM4Tv2Config),
}
"""Models with their parts for text and speech, by model type."""


def save_native(family: str, directory: Path, *, whole: bool = False) -> PreTrainedModel:
    """Save a checkpoint of a family with its processor, and return its model.

    Args:
        family: Model type.
        directory: Directory of the checkpoint.
        whole: If true, that of a SeamlessM4T with its parts for text and speech.
    """
    processor = PROCESSORS[family](directory)
    model = _of_vocabulary(family, processor.tokenizer, whole)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return model


def _of_vocabulary(family: str, tokenizer: PreTrainedTokenizerBase, whole: bool) -> PreTrainedModel:
    """A model with as many words as the tokenizer has."""
    model = native(family)
    if whole:
        kind, config = _WHOLE[family]
        model = kind(config(**model.config.to_dict() | _SPEECH_OF_SEAMLESS)).eval()
        randomise(model)
    elif model.config.get_text_config(decoder=True).vocab_size != len(tokenizer):
        model.config.vocab_size = len(tokenizer)
        model = type(model)(model.config).eval()
        randomise(model)
    if family != "whisper":  # whose model has settings of its own
        stored = model.generation_config
        tokens = {name: getattr(stored, name) for name in _TOKENS}
        model.generation_config = GenerationConfig(**tokens | _settings(family, tokenizer))
    return model


def _settings(family: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The generation settings of a family that tell its languages and its start token."""
    if family.startswith("seamless"):
        codes = {name: tokenizer.convert_tokens_to_ids(f"__{name}__") for name in SEAMLESS_LANGUAGES}
        return dict.fromkeys(_LANGUAGES_OF_SEAMLESS, codes)
    start = {"canary": CONTEXT, "cohere_asr": NEMO_TOKENS[0]}.get(family)
    return {} if start is None else {"decoder_start_token_id": tokenizer.convert_tokens_to_ids(start)}
