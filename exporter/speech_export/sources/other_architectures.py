"""What a model is that is not exported whole, and the nearest that is."""

from transformers import PretrainedConfig

from ..families.listing import AUDIO_INPUTS, attends_to_audio, is_speech_encoder, main_input

_AS_ENCODER = "name it with --encoder and a text model, such as BERT, with --decoder"
_AS_DECODER = "name it with --decoder and a speech encoder, such as Wav2Vec2, with --encoder"
_PAIR = "name a speech encoder, such as Wav2Vec2, with --encoder and a text model, such as BERT, with --decoder"


def what_it_is(config: PretrainedConfig) -> str:
    """Return the model type and the classes of a checkpoint, for messages."""
    return f"{config.model_type} model ({', '.join(config.architectures or [type(config).__name__])})"


def nearest(config: PretrainedConfig) -> str:
    """Return why a model that is no speech seq2seq model is not exported whole, and what is, with the flags."""
    return f"{_why_and_remedy(config)}, and fine-tune both; or export a whole model, such as Whisper"


def _why_and_remedy(config: PretrainedConfig) -> str:
    kind = config.model_type
    is_encoder, given = is_speech_encoder(kind), main_input(kind)
    if any(name.endswith("ForCTC") for name in config.architectures or ()):
        remedy = f"to give it one, {_AS_ENCODER}" if is_encoder else f"for one with a decoder, {_PAIR}"
        return f"a CTC model has no decoder, and optimum-cli export onnx takes it as it is; {remedy}"
    if is_encoder:
        return f"it has no decoder; {_AS_ENCODER}"
    if attends_to_audio(kind):
        return f"it reads text, and has no encoder of speech; {_AS_DECODER}"
    if given in AUDIO_INPUTS:
        return f"transformers has no decoder for it, and cannot make it the encoder of a composite; {_PAIR}"
    if given == "input_ids":
        return f"transformers has no decoder of it with cross-attention, so that it cannot attend to audio; {_PAIR}"
    takes = "it takes no audio" if given is None else f"it takes {given}, which are no audio"
    return f"{takes}; {_PAIR}"
