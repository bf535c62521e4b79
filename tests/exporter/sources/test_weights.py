"""Test weights that are unexpected, missing or not finite: they are refused by name in every file format."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, SpeechEncoderDecoderModel

from composites import DECODERS, ENCODERS, composite, encoder_model
from conftest import CHECKPOINT, REPOSITORY
from speech_export import ExportError, export
from speech_export.errors import reason
from speech_export.sources.checkpoint import load_checkpoint
from speech_export.sources.configs import load_configs
from speech_export.sources.hub import DEFAULT_HUB
from speech_export.sources.pair import as_decoder, load_pair
from speech_export.sources.weights import load_part
from tiny_checkpoint import Copies, Weights, save_tiny, save_tokenizer

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

SECOND_LAYER = "encoder.encoder.layers.1.attention.k_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copies(tiny: Path, tmp_path: Path) -> Copies:
    return Copies(tiny, tmp_path)


def added(name: str, *shape: int) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: torch.ones(shape)}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"encoder": {"num_hidden_layers": 1}}, "16 of its weights: encoder.encoder.layers.1.attention.k_proj.bias"),
        ({"decoder": {"num_hidden_layers": 1}}, "26 of its weights: decoder.bert.encoder.layer.1"),
        ({"encoder": {"num_hidden_layers": 0}}, "encoder.encoder.layers.0"),
        ({"decoder": {"num_hidden_layers": 0}}, "decoder.bert.encoder.layer.0"),
        ({"decoder": {"add_cross_attention": False}}, "crossattention"),
        ({"decoder": {"model_type": "roberta"}}, "decoder.bert.embeddings"),
        ({"decoder": {"cross_attention_hidden_size": 32}}, "enc_to_dec_proj.bias, enc_to_dec_proj.weight"),
        ({"encoder": {"feat_extract_norm": "group"}}, "feature_extractor.conv_layers.1.layer_norm"),
    ],
)
def test_weights_that_the_configuration_has_no_place_for_are_named(
    config: dict[str, object], named: str, copies: Copies
) -> None:
    with pytest.raises(ExportError, match="has no place for") as refusal:
        load_checkpoint(str(copies({"config.json": config})))
    assert named in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["encoder.adapter.layers.0.conv.weight", "decoder.bert.pooler.dense.weight", "encoder.lm_head.weight", "x"]
)
def test_a_weight_more_is_named(name: str, copies: Copies) -> None:
    with pytest.raises(ExportError, match=rf"no place for 1 of its weights: {name}; .*add_adapter"):
        load_checkpoint(str(copies(weights=added(name, 2, 2))))


def test_a_trained_adapter_is_not_left_out(tmp_path: Path) -> None:
    trained = Copies(save_tiny(tmp_path / "adapter", encoder="wav2vec2, adapter"), tmp_path)
    with pytest.raises(ExportError, match=r"no place for \d+ of its weights: encoder\.adapter\."):
        load_checkpoint(str(trained({"config.json": {"encoder": {"add_adapter": False}}})))


@pytest.mark.parametrize(
    "name",
    [
        "decoder.bert.embeddings.position_ids",
        "decoder.transformer.h.0.attn.masked_bias",
        "decoder.model.decoder.embed_positions._float_tensor",
        "decoder.model.decoder.embed_positions.weights",
    ],
)
def test_what_older_releases_saved_beside_weights_is_no_fault(name: str, copies: Copies, tiny: Path) -> None:
    loaded = load_checkpoint(str(copies(weights=added(name, 1, 64)))).model.state_dict()
    torch.testing.assert_close(loaded, SpeechEncoderDecoderModel.from_pretrained(tiny).state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("form", ["sharded", "pickled"])
def test_in_any_form_weights_left_over_are_named(form: str, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    weights = load_file(checkpoint / "model.safetensors") | {"encoder.extra.weight": torch.ones(2)}
    (checkpoint / "model.safetensors").unlink()
    if form == "sharded":
        model = SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT)
        model.save_pretrained(checkpoint, state_dict=weights, max_shard_size="1MB")
        assert len(list(checkpoint.glob("*.safetensors"))) > 1
    else:
        torch.save(weights, checkpoint / "pytorch_model.bin")
    with pytest.raises(ExportError, match="no place for 1 of its weights: encoder.extra.weight"):
        load_checkpoint(str(checkpoint))


def test_a_flax_array_left_over_is_named(tmp_path: Path) -> None:
    flax = Copies(REPOSITORY / "tests" / "data" / "flax" / "bert", tmp_path)
    layers = json.loads((flax.original / "config.json").read_text())["decoder"]["num_hidden_layers"]
    fewer = flax({"config.json": {"decoder": {"num_hidden_layers": layers - 1}}})
    with pytest.raises(ExportError, match="no place in the model for decoder/bert/encoder/layer"):
        load_checkpoint(str(fewer), without=("tokenizer", "feature-extractor"))


def test_layers_of_speech2text2_left_over_are_named(tmp_path: Path) -> None:
    tiny = Copies(save_tiny(tmp_path / "trocr", "trocr, sinusoidal"), tmp_path)
    speech2text2 = {"model_type": "speech_to_text_2", "decoder_layers": 1, "max_target_positions": 64}
    with pytest.raises(ExportError, match="no place for .* of its weights: decoder.model.decoder.layers.1"):
        load_checkpoint(str(tiny({"config.json": {"decoder": speech2text2}})))


def test_shapes_are_told_both(copies: Copies) -> None:
    narrow = copies(weights=lambda weights: {**weights, SECOND_LAYER: weights[SECOND_LAYER][:, 1:].contiguous()})
    with pytest.raises(ExportError, match=rf"other shapes: {SECOND_LAYER} is \[32, 31\], not \[32, 32\]"):
        load_checkpoint(str(narrow))
    with pytest.raises(ExportError, match=r"word_embeddings.weight is \[90, 24\], not \[91, 24\]"):
        load_checkpoint(str(copies({"config.json": {"decoder": {"vocab_size": 91}}})))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    model = composite("bert")
    with torch.no_grad():
        model.get_parameter(SECOND_LAYER)[3, 4] = value
    with pytest.raises(ExportError, match=rf"1 of the model's weights are not finite .*: {SECOND_LAYER}"):
        export(model, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_half_without_layers_is_refused(half: str, tmp_path: Path) -> None:
    configs = {"encoder": ENCODERS["wav2vec2"]().to_diff_dict(), "decoder": DECODERS["bert"]().to_diff_dict()}
    configs[half]["num_hidden_layers"] = 0
    model = load_configs(json.dumps(configs["encoder"]), json.dumps(configs["decoder"]))
    with pytest.raises(ExportError, match=f"the {half}, (wav2vec2|bert), has no layers"):
        export(model, tmp_path / "bundle")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision_become_float32(dtype: torch.dtype, copies: Copies, tiny: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    stored = copies(
        {"config.json": {"dtype": name, "encoder": {"dtype": name}, "decoder": {"dtype": name}}},
        lambda weights: {key: tensor.to(dtype) for key, tensor in weights.items()},
    )
    loaded, original = (load_checkpoint(str(checkpoint)).model.state_dict() for checkpoint in (stored, tiny))
    expected = {key: tensor.to(dtype).float() for key, tensor in original.items() if tensor.is_floating_point()}
    found = {key: tensor for key, tensor in loaded.items() if tensor.is_floating_point()}
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("part", ["whole", "decoder"])
def test_a_quantised_checkpoint_is_refused(part: str, copies: Copies) -> None:
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    copy = copies({"config.json": quantised if part == "whole" else {part: quantised}})
    with pytest.raises(ExportError, match=r"is quantised .*bitsandbytes.*dequantize\(\), and choose --precision int8"):
        load_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("head", "dropped"),
    [
        ("Wav2Vec2ForCTC", "lm_head"),
        ("Wav2Vec2ForPreTraining", "quantizer"),
        ("Wav2Vec2ForXVector", "tdnn"),
        ("Wav2Vec2ForSequenceClassification", "classifier"),
    ],
)
def test_an_encoder_leaves_its_head_behind_but_no_layer(head: str, dropped: str, tmp_path: Path) -> None:
    whole = getattr(transformers, head)(ENCODERS["wav2vec2"]())
    assert any(name.startswith(dropped) for name in whole.state_dict())
    whole.save_pretrained(tmp_path / "whole")
    halves = Copies(tmp_path / "whole", tmp_path)
    config = AutoConfig.from_pretrained(tmp_path / "whole")
    loaded, missing = load_part(transformers.AutoModel, str(tmp_path / "whole"), config, config, DEFAULT_HUB)
    torch.testing.assert_close(loaded.state_dict(), whole.wav2vec2.state_dict(), atol=0, rtol=0)
    assert not missing
    fewer = halves({"config.json": {"num_hidden_layers": 1}})
    config = AutoConfig.from_pretrained(fewer)
    with pytest.raises(ExportError, match=r"no place for 16 of its weights: wav2vec2.encoder.layers.1"):
        load_part(transformers.AutoModel, str(fewer), config, config, DEFAULT_HUB)


@pytest.mark.parametrize(
    ("head", "family"),
    [
        ("BertModel", "bert"),
        ("BertForPreTraining", "bert"),
        ("BertForMaskedLM", "bert"),
        ("RobertaForSequenceClassification", "roberta"),
        ("GPT2ForTokenClassification", "gpt2"),
        ("BartForConditionalGeneration", "bart"),
        ("MBartModel", "mbart"),
    ],
)
def test_a_decoder_keeps_all_that_it_has_a_place_for(head: str, family: str, tmp_path: Path) -> None:
    config = DECODERS[family]()
    config.is_decoder = config.add_cross_attention = False
    whole = getattr(transformers, head)(config)
    whole.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    loaded, missing = load_part(AutoModelForCausalLM, str(tmp_path), as_decoder(config), config, DEFAULT_HUB)
    assert not [name for name in missing if "embed" in name or ("layers" in name and "encoder_attn" not in name)]
    words: nn.Module = whole.get_input_embeddings()
    torch.testing.assert_close(loaded.get_input_embeddings().weight, words.weight, atol=0, rtol=0)


def test_a_pair_names_decoder_layers_left_over(tmp_path: Path) -> None:
    encoder_model("wav2vec2").save_pretrained(tmp_path / "encoder")
    config = DECODERS["bart"]()
    transformers.BartForConditionalGeneration(config).save_pretrained(tmp_path / "decoder")
    save_tokenizer(tmp_path / "decoder")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "encoder")
    fewer = Copies(tmp_path / "decoder", tmp_path)({"config.json": {"decoder_layers": 1}})
    with pytest.raises(ExportError, match=r"no place for \d+ of its weights: model.decoder.layers.1"):
        load_pair(str(tmp_path / "encoder"), str(fewer))


@pytest.mark.parametrize("content", ["", "null", "[1]", '{"eos_token_id": '])
def test_damaged_generation_settings_are_not_passed_over(content: str, copies: Copies) -> None:
    copy = copies()
    (copy / "generation_config.json").write_text(content)
    with pytest.raises(ExportError, match=r"generation settings \(generation_config.json\) could not be loaded"):
        load_checkpoint(str(copy))
    (copy / "generation_config.json").unlink()
    assert load_checkpoint(str(copy)).model.generation_config.eos_token_id == 2


@pytest.mark.parametrize("content", ["[1]", "3", "null", '{"model_type": ', ""])
def test_a_configuration_that_is_none_is_refused(content: str, copies: Copies) -> None:
    copy = copies()
    (copy / "config.json").write_text(content)
    with pytest.raises(ExportError, match="a configuration could not be loaded from this directory"):
        load_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"encoder": {"layer_norm_eps": float("nan")}}, "the encoder, wav2vec2, computes NaN"),
        ({"decoder": {"layer_norm_eps": float("nan")}}, "the decoder, bert, computes NaN"),
        ({"encoder": {"conv_stride": [5, 2, 0]}}, "does not run as an encoder: encoder.stride is 0"),
        ({"encoder": {"hidden_act": "nonsense"}}, "KeyError: 'nonsense'"),
    ],
)
def test_a_configuration_that_does_not_compute_is_refused(
    config: dict[str, object], message: str, copies: Copies, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export(str(copies({"config.json": config})), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_sentence_with_the_cause_and_the_flag_are_told(copies: Copies) -> None:
    copy = copies()
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ExportError, match=r"\(--processor\), or do without \(--without tokenizer\)") as refusal:
        load_checkpoint(str(copy))
    assert not str(refusal.value).endswith(":")


def test_a_tokenizer_without_words_is_refused(copies: Copies, tmp_path: Path) -> None:
    copy = copies()
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BartTokenizer"}'
    )  # transformers loads five tokens
    with pytest.raises(ExportError, match=r"it has no tokenizer\.json"):
        export(str(copy), tmp_path / "bundle")
    model = SpeechEncoderDecoderModel.from_pretrained(copy)
    empty = transformers.AutoTokenizer.from_pretrained(copy)
    with pytest.raises(ExportError, match="the tokenizer has no words"):
        export(model, tmp_path / "bundle", tokenizer=empty)


def test_a_reason_is_neither_cut_to_its_heading_nor_a_bare_key() -> None:
    assert reason(ValueError("For details look below:\n\n  the cause")) == "For details look below: the cause"
    assert reason(KeyError("gelu")) == "KeyError: 'gelu'"
    assert reason(RuntimeError()) == "RuntimeError"
    long = reason(RuntimeError("BertLayer(\n" + "  (dense): Linear()\n" * 100 + ") got an unexpected argument"))
    assert long.startswith("BertLayer( (dense)")
    assert long.endswith(") got an unexpected argument")
    assert len(long) <= 403
