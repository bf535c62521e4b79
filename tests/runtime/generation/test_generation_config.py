"""Test generation settings: read, overridden, and refused with the reason."""

import inspect
import json
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import GenerationConfig as ReferenceConfig

from speech_runtime import BundleError, GenerationConfig, GenerationError
from speech_runtime.bundle.vocabulary import Vocabulary
from speech_runtime.cli.flags import token_ids
from speech_runtime.cli.transcribe import main
from speech_runtime.generation.call_options import CallOptions
from speech_runtime.generation.config import GenerationSettings
from speech_runtime.generation.generator import SpeechGenerator


def test_read_from_what_transformers_writes(tmp_path: Path) -> None:
    ReferenceConfig(decoder_start_token_id=1, eos_token_id=[2, 4], pad_token_id=0, num_beams=5).save_pretrained(
        tmp_path
    )
    config = GenerationConfig.from_file(tmp_path / "generation_config.json")
    assert (config.start_token_ids(1), config.eos_token_ids, config.num_beams) == ((1,), (2, 4), 5)
    assert config.fill_token_id == 2  # beam search of transformers takes a padding token of 0 for none
    assert config.updated({"num_beams": 1}).fill_token_id == 0


def test_numbers_of_libraries_are_numbers() -> None:
    given = {
        "num_beams": np.int64(2),
        "temperature": np.float32(0.5),
        "eos_token_id": torch.tensor(2),
        "suppress_tokens": np.array([9, 8]),
        "bad_words_ids": [np.array([5]), [np.int64(6), 7]],
        "do_sample": np.bool_(True),
    }
    plain = {
        "num_beams": 2,
        "temperature": 0.5,
        "eos_token_id": 2,
        "suppress_tokens": [9, 8],
        "bad_words_ids": [[5], [6, 7]],
        "do_sample": True,
    }
    assert GenerationConfig().updated(given) == GenerationConfig().updated(plain)


def test_none_leaves_a_setting_as_it_is() -> None:
    config = GenerationConfig(temperature=0.5, do_sample=True, top_k=3, max_length=9)
    names = ("temperature", "top_p", "do_sample", "early_stopping", "repetition_penalty", "no_repeat_ngram_size")
    assert config.updated(dict.fromkeys(names)) == config
    assert config.updated({"top_k": None, "max_length": None}) == GenerationConfig(
        temperature=0.5, do_sample=True, top_k=None
    )
    with pytest.raises(GenerationError, match="temperatur is not a known setting"):
        config.updated({"temperatur": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beam": 4}, r"num_beam is not a known setting; did you mean num_beams\?"),
        ({"surprise": 3}, r"surprise is not a known setting; help\(OnnxSpeechSeq2Seq.generate\) lists"),
        ({"num_beams": 0}, "num_beams is 0; give 1 to 1,024"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences is 3 but num_beams only 2"),
        ({"num_beams": "four"}, "num_beams is 'four', expected int"),
        ({"early_stopping": "sometimes"}, "early_stopping is 'sometimes', expected bool or 'never'"),
        ({"early_stopping": np.array([1, 2])}, r"early_stopping is \[1, 2\], expected bool or 'never'"),
        ({"eos_token_id": np.array([1.5])}, r"eos_token_id is \[1\.5\], expected int or a list of int"),
        ({"pad_token_id": np.array([-1])}, r"pad_token_id is \[-1\], expected int"),
        ({"guidance_scale": np.array([1, 2])}, "guidance_scale is for classifier-free guidance"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"penalty_alpha": 0.6}, "penalty_alpha is for contrastive search, which this runtime does not support"),
        ({"num_beam_groups": 2}, "num_beam_groups is for group beam search"),
        ({"dola_layers": "high"}, "dola_layers is for DoLa decoding"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens is for assisted generation"),
        ({"temperature": 0.0}, "temperature is 0.0; give 1e-30 to 1e\\+30"),
        ({"top_p": 1.5}, "top_p is 1.5; give a number above 0 and at most 1"),
        ({"num_return_sequences": 2}, "num_return_sequences is 2 but num_beams only 1"),
        ({"exponential_decay_length_penalty": (2, 1.1)}, "exponential_decay_length_penalty needs an eos_token_id"),
        (
            {"exponential_decay_length_penalty": (2,)},
            r"exponential_decay_length_penalty is \(2,\), expected \[int, float\]",
        ),
        ({"bad_words_ids": [[]]}, "bad_words_ids has an empty sequence"),
        ({"decoder_start_token_id": [1.5]}, "decoder_start_token_id"),
        ({"num_beams": 10**9}, "num_beams is 1000000000; give 1 to 1,024"),
        ({"num_return_sequences": 65_537, "do_sample": True}, "num_return_sequences is 65537"),
        ({"max_new_tokens": 10**9}, "max_new_tokens is 1000000000; give 1 to 131,072"),
        ({"max_length": 2**63}, "max_length is 9223372036854775808"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1"),
        ({"length_penalty": math.nan}, "length_penalty is nan"),
        ({"length_penalty": -math.inf}, "length_penalty is -inf"),
        ({"length_penalty": 10**400}, r"length_penalty is 1000.*000, which is too large"),
        ({"length_penalty": 1e30}, r"length_penalty is 1e\+30; give -100 to 100"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": 1e-300}, "temperature is 1e-300; give 1e-30 to"),
        ({"repetition_penalty": math.nan}, "repetition_penalty is nan"),
        ({"repetition_penalty": -1.3}, "repetition_penalty is -1.3"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"max_time": math.nan}, "max_time is nan"),
        ({"max_time": math.inf}, "max_time is inf"),
        (
            {"exponential_decay_length_penalty": (2, math.nan), "eos_token_id": 2},
            r"exponential_decay_length_penalty is \(2, nan\); give",
        ),
        ({"sequence_bias": [[[5], math.nan]]}, "sequence_bias is .*; give sequences with biases up to"),
        ({"sequence_bias": [[[5], math.inf]]}, "sequence_bias is .*; give sequences with biases up to"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        GenerationConfig().updated(settings)


@pytest.mark.parametrize("value", ["no", 0, 1, np.array([True])])
def test_return_dict_in_generate_is_a_boolean(value: Any) -> None:
    with pytest.raises(GenerationError, match="return_dict_in_generate is .*, it must be True or False"):
        CallOptions(return_dict_in_generate=value)


@pytest.mark.parametrize(
    ("misspelt", "meant"), [("langage", "language"), ("batchsize", "batch_size"), ("output_score", "output_scores")]
)
def test_misspelt_keywords_of_a_call_are_suggested(misspelt: str, meant: str) -> None:
    model = SimpleNamespace(generation_config=GenerationConfig())
    with pytest.raises(GenerationError, match=rf"{misspelt} is not a known setting; did you mean {meant}\?"):
        SpeechGenerator._options_and_settings(model, {misspelt: 1})


OUTSIDE = [-1, -5, 32, 99, 2**40]
"""Token ids that a decoder of 32 tokens does not have."""


@pytest.mark.parametrize("token", OUTSIDE)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forced_bos_token_id", lambda token: token),
        ("forced_eos_token_id", lambda token: [2, token]),
        ("decoder_start_token_id", lambda token: token),
        ("bos_token_id", lambda token: token),  # the start token, where there is no other
        ("eos_token_id", lambda token: [2, token]),
        ("bad_words_ids", lambda token: [[5], [6, token]]),
        ("sequence_bias", lambda token: [[[5, token], -2.0]]),
    ],
)
def test_token_ids_outside_the_vocabulary_are_refused(
    name: str, value: Callable[[int], Any], token: int, tmp_path: Path
) -> None:
    _refused(name, value(token), token, tmp_path)


@pytest.mark.parametrize("token", [-5, 32, 99])
@pytest.mark.parametrize("name", ["eos_token_id", "pad_token_id"])
def test_an_end_or_padding_outside_the_vocabulary_is_refused(name: str, token: int, tmp_path: Path) -> None:
    _refused(name, token, token, tmp_path)


def _refused(name: str, value: Any, token: int, tmp_path: Path) -> None:
    settings = {name: value}
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(GenerationError, match=rf"generation_config.json: {name} has {token}, .*leave the setting out"):
        GenerationConfig.from_file(path, Vocabulary(32))
    with pytest.raises(GenerationError, match=f"{name} has {token}"):
        GenerationConfig().updated(settings).check_vocabulary(Vocabulary(32))


def test_the_edges_of_the_vocabulary_are_in_it() -> None:
    GenerationConfig().updated(
        {"forced_bos_token_id": 31, "decoder_start_token_id": 0, "eos_token_id": [0, 31], "bad_words_ids": [[31]]}
    ).check_vocabulary(Vocabulary(32))


def test_no_end_and_no_padding_may_be_written_as_minus_one(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"decoder_start_token_id": 0, "eos_token_id": -1, "pad_token_id": -1}))
    config = GenerationConfig.from_file(path, Vocabulary(32))
    assert (config.eos_token_ids, config.pad_token_id) == ((), None)


def test_suppressing_a_token_that_there_is_not_changes_nothing() -> None:
    GenerationConfig().updated({"suppress_tokens": [-1, 99], "begin_suppress_tokens": [32]}).check_vocabulary(
        Vocabulary(32)
    )


def test_a_begin_that_is_never_used_may_be_of_another_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"decoder_start_token_id": 1, "bos_token_id": 50256}))
    assert GenerationConfig.from_file(path, Vocabulary(32)).start_token_ids(1) == (1,)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"eos_token_id": ' * 50_000 + "2" + "}" * 50_000, "nested too deeply"),
        ('{"eos_token_id": 2', "cannot be read"),
        ("[1, 2]", "is not an object of settings"),
        ("null", "is not an object of settings"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_settings_is_named(written: str | bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(BundleError, match=rf"generation_config.json .*{problem}"):
        GenerationConfig.from_file(path)


def test_settings_without_effect_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"do_sample": False, "repetition_penalty": 1.0, "top_k": 50, "use_cache": True}))
    assert GenerationConfig.from_file(path) == GenerationConfig()


def test_every_setting_of_transformers_survives_its_file(tmp_path: Path) -> None:
    ReferenceConfig(
        do_sample=True,
        temperature=0.7,
        sequence_bias=[[[3, 4], -1.5], [[7], 2.0]],
        bad_words_ids=[[5], [6, 7]],
        exponential_decay_length_penalty=(3, 1.2),
        no_repeat_ngram_size=3,
        eos_token_id=2,
    ).save_pretrained(tmp_path)
    config = GenerationConfig.from_file(tmp_path / "generation_config.json")
    assert config.sequence_bias == (((3, 4), -1.5), ((7,), 2.0))
    assert config.updated({"sequence_bias": {(3, 4): -1.5, (7,): 2.0}}) == config
    assert (config.bad_words_ids, config.exponential_decay_length_penalty) == (((5,), (6, 7)), (3, 1.2))
    assert (config.do_sample, config.temperature, config.no_repeat_ngram_size) == (True, 0.7, 3)


def test_a_file_that_asks_for_more_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"surprise": 3}))
    with pytest.raises(GenerationError, match=r"generation_config.json: surprise is not a known setting"):
        GenerationConfig.from_file(path)


def test_a_start_token_for_each_utterance() -> None:
    config = GenerationConfig().updated({"decoder_start_token_id": [4, 5]})
    assert config.start_token_ids(2) == (4, 5)
    with pytest.raises(GenerationError, match="has 2 tokens for 3 utterances"):
        config.start_token_ids(3)


@pytest.mark.parametrize(
    ("settings", "prompt", "expected"),
    [
        ({}, 1, (0, 21)),
        ({"max_new_tokens": 5}, 3, (0, 8)),
        ({"max_length": 9, "max_new_tokens": 5}, 1, (0, 6)),
        ({"max_length": 9, "min_length": 4}, 2, (4, 9)),
        ({"max_length": 9, "min_new_tokens": 4}, 2, (6, 9)),
        ({"max_new_tokens": 63}, 1, (0, 64)),
    ],
)
def test_lengths_count_as_in_transformers(settings: dict[str, Any], prompt: int, expected: tuple[int, int]) -> None:
    assert GenerationConfig().updated(settings).length_range(prompt, 64) == expected


@pytest.mark.parametrize(
    ("settings", "prompt", "message"),
    [
        ({"max_new_tokens": 65}, 1, "do not fit the decoder's 64 positions; set max_new_tokens to 64 or less"),
        ({"max_length": 3}, 3, "nothing can be generated"),
    ],
)
def test_lengths_beyond_the_model_are_refused(settings: dict[str, Any], prompt: int, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        GenerationConfig().updated(settings).length_range(prompt, 64)


def test_a_missing_start_token_is_named() -> None:
    remedy = "not set in the bundle's generation_config.json, .*give decoder_start_token_id .--decoder-start-token-id"
    with pytest.raises(GenerationError, match=f"decoder_start_token_id is {remedy}"):
        _ = GenerationConfig().start_token_ids(1)


def stored(kind: Any) -> Any:
    """The type that the configuration has for a keyword of this type: tuples for lists, and no dictionaries."""
    if get_origin(kind) is list:
        return tuple[stored(get_args(kind)[0]), ...]
    if get_origin(kind) is tuple:
        return tuple[*(item if item is ... else stored(item) for item in get_args(kind))]
    if get_origin(kind) in (Union, types.UnionType):
        return Union[*(stored(option) for option in get_args(kind) if get_origin(option) is not Mapping)]
    return kind


def test_typed_keywords_are_the_settings() -> None:
    settings = get_type_hints(GenerationConfig)
    del settings["bos_token_id"]  # a call gives decoder_start_token_id
    assert {name: stored(kind) for name, kind in get_type_hints(GenerationSettings).items()} == settings


def test_every_setting_is_described_and_in_the_help_of_the_command_line() -> None:
    flags = {option.name: option for option in main.params}
    described = inspect.getdoc(GenerationConfig).partition("Attributes:\n")[2]
    for setting in fields(GenerationConfig):
        assert f"    {setting.name}: " in described
        if setting.name not in ("bos_token_id", "num_return_sequences"):
            assert flags[setting.name].help
    assert "--max-length" in flags["max_new_tokens"].help


@pytest.mark.parametrize(
    "flag",
    [
        *(("--suppress-tokens", text) for text in ("1_0", "\u0661", "1,,2", "", "five")),
        *((flag, text) for flag in ("--num-beams", "--batch-size") for text in ("1_0", "\u0661", "2.5")),
        ("--batch-size", "1000000000000000000"),
        *(("--length-penalty", text) for text in ("1_0", "\u0661.5")),
    ],
    ids=str,
)
def test_numbers_of_the_command_line_are_ascii_digits(flag: tuple[str, str]) -> None:
    result = CliRunner().invoke(main, ["no-bundle", "no.wav", *flag])
    assert result.exit_code == 2
    assert f"'{flag[0]}'" in result.stderr


def test_lists_of_tokens_may_have_blanks_and_minus_one() -> None:
    assert token_ids("5, 6 ,7") == [5, 6, 7]
    assert token_ids("-1") == [-1]
