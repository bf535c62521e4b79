"""Test `speech-export --vocabulary`: what it keeps, what it reports, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, Wav2Vec2FeatureExtractor

from composites import EOS, PAD, START, VOCABULARY, composite
from conftest import CHECKPOINT, CLIPS, ONE_THREAD
from speech_export import ExportError, PrecisionOptions, export, load_checkpoint
from speech_export.cli.export import main
from speech_export.verification.evaluation_audio import audio_set
from speech_export.verification.reference import BEAMS
from speech_export.verification.trimmed_torch import only_kept_tokens, transcripts, word_error_rate_of
from speech_runtime import GenerationError, OnnxSpeechSeq2Seq
from speech_runtime.__main__ import main as describe

WORDS = [f"word{number}" for number in range(4, VOCABULARY)]
KEPT = WORDS[1::2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model whose tokens are words."""
    directory = tmp_path_factory.mktemp("checkpoint")
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    names = {"<unk>": 0, "<s>": START, "</s>": EOS, "<pad>": PAD}
    words = Tokenizer(WordLevel({**names, **{word: 4 + place for place, word in enumerate(WORDS)}}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(directory)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(directory)
    model = composite("bert")
    model.generation_config.max_length = 12
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle that keeps the words of two files, and what the command says about it."""
    directory = tmp_path_factory.mktemp("trimmed")
    (directory / "text.txt").write_text(" ".join(KEPT[:30]))
    (directory / "more.tokens").write_text("\n".join(KEPT[30:]))
    (directory / "other.txt").write_text(f"{KEPT[0]} {WORDS[0]} {WORDS[2]} {WORDS[0]}")
    (directory / "speech").mkdir()
    for name in ("03-flite-kal.wav", "08-espeak-one-digit.wav"):
        (directory / "speech" / name).symlink_to(CLIPS / name)
    (directory / "speech" / "reference.tsv").write_text(f"file\ttext\n03-flite-kal.wav\t{WORDS[0]} {WORDS[1]}\n")
    arguments = [str(checkpoint), "-o", str(directory / "bundle"), "--calibration-audio", str(directory / "speech")]
    for name in ("text.txt", "more.tokens"):
        arguments += ["--vocabulary", str(directory / name)]
    result = CliRunner().invoke(main, [*arguments, "--vocabulary-check", str(directory / "other.txt")])
    assert result.exit_code == 0, result.output
    return directory / "bundle", result.stdout


def test_the_summary_says_what_trimming_costs(exported: tuple[Path, str], checkpoint: Path) -> None:
    bundle, summary = exported
    facts = json.loads(CliRunner().invoke(describe, [str(bundle), "--json"]).stdout)
    trimming, count = facts["trimming"], 4 + len(KEPT)
    assert facts["decoder"]["kept_tokens"].startswith("0-3,5,7,9")
    assert facts["decoder"]["vocab_size"] == VOCABULARY
    weights = (VOCABULARY - count) * 25  # of the table that embedding and head share, and of the bias
    assert (trimming["weights"], trimming["bytes_saved"]) == (weights, 4 * weights)
    assert trimming["files"] == ["text.txt (text)", "more.tokens (tokens)"]
    assert (trimming["text_words"], trimming["lost_words"], trimming["lost_examples"]) == (4, 3, [WORDS[0], WORDS[2]])
    described = CliRunner().invoke(describe, [str(bundle)]).stdout
    for line in (
        f"{count} of 90 tokens, by text.txt (text), more.tokens (tokens): {weights:,} weights fewer",
        f"3 of 4 words of the text lost (75.00%), such as {WORDS[0]}, {WORDS[2]}",
        f"words that change on the audio: {trimming['changed_words']:.2%}; word error rate of torch with all tokens: ",
    ):
        assert f"vocabulary: {line}" in summary
        assert line in described


@pytest.mark.filterwarnings("ignore:.*is cut off at its maximal length")
def test_the_words_that_change_are_those_of_torch(exported: tuple[Path, str], checkpoint: Path) -> None:
    model = OnnxSpeechSeq2Seq.from_pretrained(exported[0], options=ONE_THREAD)
    trimming, torch_model = model.manifest.trimming, load_checkpoint(str(checkpoint))
    assert trimming is not None
    assert trimming.changed_words is not None
    audio = audio_set(model.manifest.encoder, model.feature_extractor, [], exported[0].parent / "speech")
    full = transcripts(torch_model.model, audio, 32, None, torch_model.tokenizer)
    with only_kept_tokens(torch_model.model, model.manifest.decoder.vocabulary):
        few = transcripts(torch_model.model, audio, 32, None, torch_model.tokenizer)
    assert full != few
    assert {*" ".join(few).split()} <= {*KEPT, ""}
    assert trimming.changed_words > 0
    assert trimming.full_word_error_rate == word_error_rate_of(full, audio)
    clips = [path for path in sorted((exported[0].parent / "speech").iterdir()) if path.suffix == ".wav"]
    said = [model.transcribe(clip, num_beams=BEAMS, max_new_tokens=32) for clip in clips]
    assert sorted(said) == sorted(few)


def test_to_score_a_word_that_is_left_out_is_an_error_with_its_name(exported: tuple[Path, str]) -> None:
    model = OnnxSpeechSeq2Seq.from_pretrained(exported[0], options=ONE_THREAD)
    clip = CLIPS / "08-espeak-one-digit.wav"
    assert (model.score(clip, [KEPT[0], f"{KEPT[3]} {KEPT[0]}"]) < 0).all()
    with pytest.raises(
        GenerationError, match=f"text 1 has the tokens '{WORDS[4]}' \\(8\\), which this bundle leaves out"
    ):
        model.score(clip, [KEPT[0], WORDS[4]])


@pytest.mark.usefixtures("short_verification", "traced_once")
def test_a_list_of_all_tokens_makes_the_bundle_of_none(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "all.ids").write_text("\n".join(map(str, range(VOCABULARY))))
    bundle = export(checkpoint, tmp_path / "bundle", vocabulary=[tmp_path / "all.ids"])
    content = json.loads((bundle.directory / "bundle.json").read_text())
    assert "trimming" not in content
    assert "kept_tokens" not in content["decoder"]


@pytest.mark.parametrize("names", [["nowhere.txt"], ["a.list"], []])
def test_a_wrong_file_is_refused_before_the_model_is_loaded(names: list[str], tmp_path: Path) -> None:
    files = [argument for name in names for argument in ("--vocabulary", str(tmp_path / name))]
    check = [] if names else ["--vocabulary-check", str(tmp_path / "text.txt")]
    result = CliRunner().invoke(main, [str(CHECKPOINT), "-o", str(tmp_path / "bundle"), *files, *check])
    assert result.exit_code == 1
    assert "--vocabulary" in result.stderr
    assert "loading the model" not in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_token_that_the_model_lacks_leaves_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "kept.ids").write_text("5\n99\n")
    with pytest.raises(ExportError, match=r"kept\.ids, line 2: the model has no token 99, its token ids are 0 … "):
        export(CHECKPOINT, tmp_path / "bundle", vocabulary=[tmp_path / "kept.ids"], precision=PrecisionOptions())
    assert not (tmp_path / "bundle").exists()
