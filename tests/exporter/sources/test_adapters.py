"""Test adapters of peft: merged, they compute what peft computes without merging; what does not fit is refused."""

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Speech2TextForConditionalGeneration, SpeechEncoderDecoderModel

from adapters import KINDS, save_adapter
from composites import composite, encoder_model
from native_checkpoints import save_native
from speech_export import ExportError, HubOptions, export, load_checkpoint, load_pair
from speech_runtime import OnnxSpeechSeq2Seq
from tiny_checkpoint import Copies, save_tiny, save_tokenizer

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

PROMPT = torch.tensor([[1, 5, 6, 9], [1, 7, 8, 5]])
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lora")
    save_adapter(of(base), directory, base=base)
    return directory


@pytest.fixture
def loras(lora: Path, tmp_path: Path) -> Copies:
    return Copies(lora, tmp_path)


def of(base: Path) -> SpeechEncoderDecoderModel:
    return SpeechEncoderDecoderModel.from_pretrained(base)


def audio() -> torch.Tensor:
    return torch.randn(2, 900, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_values=audio(), decoder_input_ids=PROMPT).logits
    return found


def changed_weights(adapter: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    weights = load_file(adapter / WEIGHTS)
    change(weights)
    save_file(weights, adapter / WEIGHTS, {"format": "pt"})
    return adapter


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_computes_what_peft_computes(kind: str, base: Path, tmp_path: Path) -> None:
    expected = logits(save_adapter(of(base), tmp_path / "adapter", kind))
    merged = load_checkpoint(str(base), adapter=str(tmp_path / "adapter")).model
    assert merged.state_dict().keys() == of(base).state_dict().keys()
    assert all(parameter.dtype == torch.float32 for parameter in merged.parameters())
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    assert (logits(of(base)) - expected).abs().max() > 0.01


def test_the_graphs_of_an_adapter_alone_compute_what_peft_computes(base: Path, tmp_path: Path) -> None:
    expected = save_adapter(of(base), tmp_path / "adapter", "LoRA and whole modules", base)
    exported = export(tmp_path / "adapter", tmp_path / "bundle")
    assert exported.manifest.source == f"{base}, adapter {tmp_path / 'adapter'}"
    bundle = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle")
    found = bundle.forward(audio().numpy(), decoder_input_ids=PROMPT.numpy()).logits
    np.testing.assert_allclose(found, logits(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_an_adapter_of_one_half_finds_it(half: str, base: Path, tmp_path: Path) -> None:
    model = of(base)
    save_adapter(model.get_submodule(half), tmp_path / "adapter")
    expected = logits(model)  # peft has changed the half in place
    merged = load_checkpoint(str(base), adapter=str(tmp_path / "adapter")).model
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)


def test_a_pickled_adapter_in_half_precision_is_the_same(lora: Path, base: Path, loras: Copies) -> None:
    pickled = loras()
    halved = {name: tensor.half() for name, tensor in load_file(pickled / WEIGHTS).items()}
    torch.save(halved, pickled / "adapter_model.bin")
    (pickled / WEIGHTS).unlink()
    expected = changed_weights(loras(), lambda weights: weights.update({k: v.float() for k, v in halved.items()}))
    found, other = (load_checkpoint(str(adapter)).model.state_dict() for adapter in (pickled, expected))
    torch.testing.assert_close(found, other, atol=0, rtol=0)


@pytest.mark.parametrize("task", ["SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS"])
def test_the_task_of_an_adapter_is_no_matter(task: str, lora: Path, loras: Copies) -> None:
    found, other = (load_checkpoint(str(adapter)).model for adapter in (loras({CONFIG: {"task_type": task}}), lora))
    torch.testing.assert_close(found.state_dict(), other.state_dict(), atol=0, rtol=0)


def test_the_recorded_base_is_a_path_from_the_working_directory(
    base: Path, lora: Path, loras: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    found = load_checkpoint(str(loras({CONFIG: {"base_model_name_or_path": f"./{base.name}"}}))).model
    torch.testing.assert_close(found.state_dict(), load_checkpoint(str(lora)).model.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ("/nowhere/digits", "is an adapter of /nowhere/digits, which cannot be loaded"),
        ("", "is an adapter, and does not say of which model"),
        (None, "is an adapter, and does not say of which model"),
        (7, "adapter_config.json has no valid base_model_name_or_path"),
    ],
)
def test_a_base_that_is_not_found_is_to_be_given(recorded: object, said: str, loras: Copies) -> None:
    adapter = loras({CONFIG: {"base_model_name_or_path": recorded}})
    remedy = "" if isinstance(recorded, int) else f".*speech-export BASE --adapter {adapter}"
    with pytest.raises(ExportError, match=said + remedy):
        load_checkpoint(str(adapter))


def test_the_revision_is_the_bases_own(base: Path, loras: Copies, tmp_path: Path) -> None:
    """Of an adapter alone, `revision` is the adapter's; the base has the one that the adapter records."""
    adapter = loras({CONFIG: {"base_model_name_or_path": "someone/digits", "revision": "v2"}})
    for name, revision, files in (("someone--digits", "v2", base), ("someone--adapter", "v7", adapter)):
        repository = tmp_path / "hub" / f"models--{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / revision).write_text("1" * 40)
        shutil.copytree(files, repository / "snapshots" / ("1" * 40))
    hub = HubOptions(revision="v7", cache_dir=str(tmp_path / "hub"), offline=True)
    found = load_checkpoint("someone/adapter", hub=hub)
    assert found.source == "someone/digits, adapter someone/adapter"


def test_a_moved_base_is_no_surprise_and_another_name_a_warning(
    base: Path, loras: Copies, caplog: pytest.LogCaptureFixture
) -> None:
    moved = loras({CONFIG: {"base_model_name_or_path": f"/elsewhere/{base.name}"}})
    load_checkpoint(str(base), adapter=str(moved))
    assert not caplog.records
    other = loras({CONFIG: {"base_model_name_or_path": "someone/else"}})
    load_checkpoint(str(base), adapter=str(other))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"was trained on someone/else, and fits {base} in its shapes" in caplog.text


def test_another_base_is_refused_where_it_differs(lora: Path, base: Path, loras: Copies, tmp_path: Path) -> None:
    other, refused = save_tiny(tmp_path / "other", "gpt2"), "cannot be merged into"
    place = r"no place for 16 of the adapter's weights: decoder\.bert\.encoder\.layer\.0"
    with pytest.raises(ExportError, match=f"the adapter {lora} {refused} {other}: .*{place}.*was trained on {base}"):
        load_checkpoint(str(other), adapter=str(lora))
    name = "base_model.model.encoder.encoder.layers.0.attention.q_proj.lora_A.weight"
    narrow = changed_weights(loras(), lambda weights: weights.update({name: weights[name][:, 1:].contiguous()}))
    with pytest.raises(ExportError, match=rf"{refused} {base}: .*size mismatch .*q_proj.lora_A.*\[8, 31\].*\[8, 32\]"):
        load_checkpoint(str(narrow))


@pytest.mark.parametrize("other", ["whisper", "moonshine"])
def test_another_architecture_is_refused_even_where_shapes_fit(other: str, tmp_path: Path) -> None:
    names = {family: tmp_path / family for family in ("speech_to_text", other)}
    for family, directory in names.items():
        directory.mkdir()
        save_native(family, directory)
    trained = names["speech_to_text"]
    model = Speech2TextForConditionalGeneration.from_pretrained(trained)
    save_adapter(model, tmp_path / "adapter", base=trained, target_modules=["q_proj", "v_proj"])
    with pytest.raises(
        ExportError, match=f"merged into {names[other]}: its base is a Speech2Text.*It was trained on {trained}; give"
    ):
        load_checkpoint(str(names[other]), adapter=str(tmp_path / "adapter"))


def test_weights_that_are_left_over_or_missing_are_named(base: Path, loras: Copies) -> None:
    name = "encoder.encoder.layers.1.attention.q_proj.lora_A.weight"
    missing = changed_weights(loras(), lambda weights: weights.pop(f"base_model.model.{name}"))
    with pytest.raises(ExportError, match=f"the adapter lacks 1 of the adapter's weights: {name}"):
        load_checkpoint(str(missing))
    more = changed_weights(loras(), lambda weights: weights.update({"base_model.model.x.weight": torch.ones(2)}))
    with pytest.raises(ExportError, match="the model has no place for 1 of the adapter's weights: x.weight"):
        load_checkpoint(str(more))
    with pytest.raises(ExportError, match=f"does not know use_more, use_other of its {CONFIG}: pip install -U peft"):
        load_checkpoint(str(loras({CONFIG: {"use_more": True, "use_other": [1], "use_none": False}})))
    with pytest.raises(ExportError, match=r"Target modules .*nothing.* not found"):
        load_checkpoint(str(loras({CONFIG: {"target_modules": ["nothing"]}})))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), f"{WEIGHTS} is damaged: .*copy it again"),
        (lambda path: path.write_bytes(b""), f"{WEIGHTS} is damaged"),
        (Path.unlink, f"has {CONFIG} but not {WEIGHTS} or adapter_model.bin"),
        (lambda path: (path.parent / CONFIG).write_text("{"), f"{CONFIG} cannot be read"),
        (lambda path: (path.parent / CONFIG).write_text("[]"), f"{CONFIG} has no valid peft_type"),
    ],
    ids=["truncated", "empty", "missing", "no JSON", "no object"],
)
def test_damaged_files_are_named(fault: Callable[[Path], object], said: str, base: Path, loras: Copies) -> None:
    adapter = loras()
    fault(adapter / WEIGHTS)
    with pytest.raises(ExportError, match=f"{adapter}.*{said}"):
        load_checkpoint(str(base), adapter=str(adapter))


def test_values_that_are_no_numbers_are_named(loras: Copies) -> None:
    name = "base_model.model.decoder.bert.encoder.layer.0.attention.self.query.lora_A.weight"
    broken = changed_weights(loras(), lambda weights: weights[name][0].fill_(float("nan")))
    with pytest.raises(ExportError, match=f"the adapter {broken}: 1 of its weights are not finite .*{name}"):
        load_checkpoint(str(broken))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "of kind PREFIX_TUNING, which cannot be merged: it gives the layers more to"),
        ({"peft_type": "PROMPT_TUNING"}, "of kind PROMPT_TUNING, which cannot be merged"),
        ({"peft_type": "POLY"}, "of kind POLY; those that are merged are LORA, .*merge_and_unload"),
        ({"megatron_config": {}, "megatron_core": "antigravity"}, "remove it"),
        ({"alora_invocation_tokens": [5]}, "cannot be merged into .*aLoRA does not support merging"),
    ],
)
def test_kinds_that_cannot_be_merged_are_refused(settings: dict[str, object], said: str, loras: Copies) -> None:
    with pytest.raises(ExportError, match=said):
        load_checkpoint(str(loras({CONFIG: settings})))


def test_modules_that_peft_cannot_merge_are_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(of(base), tmp_path / "grouped", target_modules=["conv"], base=base)
    with pytest.raises(ExportError, match=r"cannot be merged into .*groups > 1.*; train one that leaves such modules"):
        load_checkpoint(str(tmp_path / "grouped"))


def test_a_merged_model_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    """The attention of WavLM reads the weights of its projections: an adapter has no effect until it is merged."""
    wavlm = save_tiny(tmp_path / "wavlm", encoder="wavlm")
    save_adapter(of(wavlm), tmp_path / "adapter", target_modules=["q_proj", "query"])
    with pytest.raises(ExportError, match=r"differs from the one with its adapter by \d.* in log-probabilities"):
        load_checkpoint(str(wavlm), adapter=str(tmp_path / "adapter"))
    expected = logits(save_adapter(of(wavlm), tmp_path / "other", target_modules=["intermediate_dense", "query"]))
    merged = load_checkpoint(str(wavlm), adapter=str(tmp_path / "other")).model
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("decoder", "encoder", "shape"),
    [("gpt2", "wav2vec2-bert, relative_key", (60, 160)), ("mbart", "audio-spectrogram-transformer", (100, 24))],
)
def test_other_inputs_and_layers(decoder: str, encoder: str, shape: tuple[int, int], tmp_path: Path) -> None:
    """The encoders take features; GPT-2 has `Conv1D` layers, whose weights are transposed."""
    other = save_tiny(tmp_path / "other", decoder, encoder)
    features = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    wrapped = save_adapter(of(other), tmp_path / "adapter", target_modules="all-linear")
    merged = load_checkpoint(str(other), adapter=str(tmp_path / "adapter")).model
    with torch.no_grad():
        found, expected, before = (
            model(inputs=features, decoder_input_ids=PROMPT[:1]).logits for model in (merged, wrapped, of(other))
        )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (before - expected).abs().max() > 0.01


def test_an_adapter_beside_weights_is_merged_only_if_asked_to(
    base: Path, lora: Path, loras: Copies, tmp_path: Path
) -> None:
    both = Path(shutil.copytree(base, tmp_path / "both"))
    shutil.copytree(lora, both, dirs_exist_ok=True)
    with pytest.raises(ExportError, match=f"beside the weights of a model, .*give --adapter {both} too"):
        load_checkpoint(str(both))
    found = load_checkpoint(str(both), adapter=f"{both}/").model.state_dict()
    torch.testing.assert_close(found, load_checkpoint(str(lora)).model.state_dict(), atol=0, rtol=0)
    with pytest.raises(ExportError, match=f"{both} has an adapter of its own .*, which --adapter {lora} would leave"):
        load_checkpoint(str(both), adapter=str(lora))
    other = loras()
    with pytest.raises(ExportError, match=f"{other} is an adapter itself .*trained on, {base}, or merge that one"):
        load_checkpoint(str(other), adapter=str(lora))


def test_without_peft_the_extra_is_named(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ExportError, match=rf"peft is needed to merge the adapter {lora} .*\[peft\]"):
        load_checkpoint(str(lora))


def test_a_model_with_its_adapter_is_to_be_merged_first(base: Path, tmp_path: Path) -> None:
    wrapped = save_adapter(of(base), tmp_path / "adapter")
    with pytest.raises(ExportError, match=r"a PeftModel, whose adapter is not merged; .*merge_and_unload"):
        export(wrapped, tmp_path / "bundle")


@pytest.fixture(scope="module")
def halves(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The halves of `base`, each in a directory with its processor; the decoder has no cross-attention."""
    encoder, decoder = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("decoder")
    encoder_model("wav2vec2").save_pretrained(encoder)
    shutil.copy(base / "preprocessor_config.json", encoder)
    alone = composite("bert").decoder.config
    alone.add_cross_attention = alone.is_decoder = False
    AutoModelForCausalLM.from_config(alone).save_pretrained(decoder)
    save_tokenizer(decoder)
    return str(encoder), str(decoder)


def test_an_adapter_of_a_pair_brings_its_cross_attention(halves: tuple[str, str], tmp_path: Path) -> None:
    joined = load_pair(*halves, seed=1).model
    targets = r"encoder\..*\.q_proj|.*\.attention\.self\.query"
    saved = ["enc_to_dec_proj", "crossattention"]
    expected = save_adapter(joined, tmp_path / "adapter", target_modules=targets, modules_to_save=saved)
    found = load_pair(*halves, seed=2, adapter=str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(found.model), logits(expected), atol=1e-5, rtol=1e-5)
    assert found.random_weights == ()
    assert load_pair(*halves, seed=2).random_weights != ()


def test_a_pair_knows_the_half_that_an_adapter_was_trained_on(
    halves: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_pair(*halves).model
    save_adapter(model.encoder, tmp_path / "adapter", base=halves[0])
    expected = model.encoder(audio()).last_hidden_state
    found = load_pair(*halves, adapter=str(tmp_path / "adapter"))
    torch.testing.assert_close(found.model.encoder(audio()).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    assert "was trained on" not in caplog.text


def test_an_adapter_of_random_weights_is_refused(halves: tuple[str, str], tmp_path: Path) -> None:
    save_adapter(load_pair(*halves).model, tmp_path / "adapter")
    random = "changes weights that are in neither checkpoint, and so are random: decoder.bert.encoder.layer.0.crossatt"
    with pytest.raises(ExportError, match=random):
        load_pair(*halves, adapter=str(tmp_path / "adapter"))


def test_an_adapter_is_no_half(lora: Path, base: Path, halves: tuple[str, str]) -> None:
    with pytest.raises(ExportError, match=f"trained on, {base}, as --encoder or --decoder, and --adapter {lora}"):
        load_pair(str(lora), halves[1])
