"""A bundle as a model of Optimum, which a pipeline of transformers takes as one of its own.

It needs the extra `optimum`. `speech_export` does not import this module, so that an export does without that extra.
"""

import logging
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES

from speech_runtime import AudioError, Bundle, BundleError, EngineOptions, OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.backends.options import options_for
from speech_runtime.bundle.hub import bundle_directory, push_to_hub
from speech_runtime.bundle.manifest import MANIFEST
from speech_runtime.generation.transformers_arguments import GenerationConfigLike, settings_of
from speech_runtime.install_hints import how_to_install

from . import export_bundle
from .bundle_writer.staging import staged
from .sources.checkpoint import load_checkpoint
from .sources.hub import HubOptions
from .torch_arrays import (
    TorchLogitsProcessor,
    TorchStoppingCriterion,
    array_of,
    device_of,
    on_arrays,
    on_rows,
    torch_output,
)

try:
    from optimum.modeling_base import OptimizedModel
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "optimum":
        raise
    raise ModuleNotFoundError(
        f"optimum is needed for speech_export.optimum: {how_to_install('optimum')}", name=error.name
    ) from error

__all__ = ["OnnxModelForSpeechSeq2Seq"]

logger = logging.getLogger(__name__)

# The pipeline looks the class of a model up among these names, and takes any other for a CTC model.
MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES["onnx_speech_seq2seq"] = "OnnxModelForSpeechSeq2Seq"


class OnnxModelForSpeechSeq2Seq(OptimizedModel):  # type: ignore[misc]  # Optimum has no types
    """A bundle that takes and returns torch tensors, for `pipeline("automatic-speech-recognition", model=…)`.

    The graphs run on the device that `from_pretrained` loads them for. Tensors may be on any device, and results are on
    that of the model input.

    Attributes:
        model: The bundle's own class, which takes and returns numpy arrays.
        config: Configuration of the checkpoint that was exported.
        generation_config: Settings of calls that give none; at first those of the bundle.
        main_input_name: Name of the model input, `input_values` or `input_features`.
        device: Device that the graphs run on.
        dtype: Dtype of the model input, of scores and of logits: float32.

    Examples:
        >>> model = OnnxModelForSpeechSeq2Seq.from_pretrained("checkpoint", export=True)
        >>> model.save_pretrained("bundle")
    """

    input_modalities = "audio"
    output_modalities = ("text",)
    dtype = torch.float32

    def __init__(self, model: OnnxSpeechSeq2Seq, bundle: Path, device: torch.device) -> None:
        """Wrap `model`, which was loaded from the directory `bundle` for `device`."""
        super().__init__(model, AutoConfig.from_pretrained(bundle))
        self.generation_config = GenerationConfig.from_pretrained(bundle)
        self.main_input_name = model.manifest.encoder.input_name
        self.device = device
        self._bundle = bundle

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        *,
        export: bool = False,
        device: str | int | torch.device | None = None,
        options: SessionOptions | EngineOptions | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **export_options: Any,
    ) -> "OnnxModelForSpeechSeq2Seq":
        """Load a bundle; or export a checkpoint, and load the result.

        Args:
            model_id: Directory or Hub id of a bundle, or of a checkpoint if `export`.
            export: If true, export into a temporary directory, which is removed with this object; `save_pretrained`
                keeps the bundle.
            device: Device of the graphs, as in `OnnxSpeechSeq2Seq.from_pretrained`.
            options: Device, threads and further options.
            revision: Branch, tag or commit of a Hub id.
            token: Access token for private repositories.
            cache_dir: Directory for downloads.
            local_files_only: If true, use only files that are in the cache.
            export_options: Keywords of `speech_export.export`, such as `precision`; with `export` only.

        Raises:
            BundleError: There is no bundle, it is damaged, or `export_options` are given without `export`.
            ExportError: The checkpoint cannot be exported.
            EngineError: ONNX Runtime, the provider for the device, or engines for it are missing.
        """
        chosen = options_for(device, options)  # type: ignore[arg-type]  # it reads the name of a torch.device
        if export:
            folder = str(cache_dir) if cache_dir is not None else None
            checkpoint = load_checkpoint(str(model_id), hub=HubOptions(revision, token, folder, local_files_only))
            temporary = tempfile.mkdtemp(prefix="speech-export-")
            try:
                exported = export_bundle.export(checkpoint, Path(temporary, "bundle"), **export_options)
                model = cls._loaded(exported.directory, chosen)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            weakref.finalize(model, shutil.rmtree, temporary, ignore_errors=True)
            return model
        if export_options:
            raise BundleError(
                f"{' and '.join(export_options)} given for {model_id}, which is loaded as a bundle; give export=True "
                "too, and a checkpoint, or leave it out"
            )
        directory = bundle_directory(
            model_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            engines=isinstance(chosen, EngineOptions),
        )
        return cls._loaded(directory, chosen)

    @classmethod
    def _loaded(cls, directory: Path, options: SessionOptions | EngineOptions) -> "OnnxModelForSpeechSeq2Seq":
        model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=options)
        if isinstance(options, SessionOptions) and options.device == "cpu":
            return cls(model, directory, torch.device("cpu"))
        return cls(model, directory, torch.device("cuda", options.device_id))

    def generate(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        generation_config: GenerationConfigLike | None = None,
        logits_processor: Sequence[TorchLogitsProcessor] | None = None,
        stopping_criteria: Sequence[TorchStoppingCriterion] | None = None,
        return_dict_in_generate: bool | None = None,
        **keywords: Any,
    ) -> Tensor | GenerateBeamEncoderDecoderOutput:
        """Generate token ids, as `generate` of transformers does.

        Args:
            inputs: Samples float [batch, samples], or features [batch, time, features]; Whisper's also as transformers
                has them, [batch, features, time]. They can be given as `main_input_name` too.
            attention_mask: Mask [batch, samples or time], 1 where there is audio; None for all ones.
            generation_config: Settings, which override those of the attribute `generation_config`.
            logits_processor: Processors of transformers: functions of sequences int64 [rows, length] and scores float32
                [rows, vocabulary], which return scores.
            stopping_criteria: Criteria of transformers: functions of sequences int64 [rows, length] and None, which
                return which of them end, bool [rows].
            return_dict_in_generate: If true, return an output with the scores that the keywords ask for.
            keywords: Further keywords of `OnnxSpeechSeq2Seq.generate`; tensors are taken too.

        Returns:
            Sequences int64 [batch × num_return_sequences, length]: start token, tokens, end token, padding. Those of
            Whisper are without the prompt, as in transformers, if no output is asked for.

        Raises:
            AudioError: The model input has another shape or dtype, is not finite, too short or too long.
            GenerationError: A setting is unknown, out of range or cannot be followed, such as `return_timestamps`.
        """
        given = {"inputs": inputs, "attention_mask": attention_mask, **keywords}
        self._check_window(given)
        settings = {**settings_of(self.generation_config), **settings_of(generation_config)}
        if return_dict_in_generate is None:
            return_dict_in_generate = bool(settings.get("return_dict_in_generate"))
        found = self.model.generate(
            **{name: array_of(value) for name, value in given.items()},
            generation_config=settings,
            logits_processor=[on_rows(processor) for processor in logits_processor or ()],
            stopping_criteria=[on_arrays(criterion) for criterion in stopping_criteria or ()],
            return_dict_in_generate=True,
        )
        device = device_of(given)
        if return_dict_in_generate:
            return torch_output(found, device)
        prompt = found.sequences.shape[1] - found.token_logprobs.shape[1] if self.config.model_type == "whisper" else 0
        return torch.tensor(found.sequences[:, prompt:], device=device)

    def forward(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **keywords: Any,
    ) -> Seq2SeqLMOutput:
        """Return the decoder's logits [batch, tokens, vocabulary] after each token, and the loss if labels are given.

        Args:
            inputs: As in `generate`.
            attention_mask: As in `generate`.
            decoder_input_ids: Token ids int64 [batch, tokens], the start token included.
            labels: Expected token ids int64 [batch, tokens], instead of `decoder_input_ids`; -100 is not counted.
            keywords: Model input under its own name, instead of `inputs`.

        Raises:
            AudioError: As in `generate`.
            GenerationError: A token is not in the vocabulary, or both or neither of the two are given.
        """
        audio = {"inputs": inputs, "attention_mask": attention_mask, **keywords}
        given = {**audio, "decoder_input_ids": decoder_input_ids, "labels": labels}
        found = self.model.forward(**{name: array_of(value) for name, value in given.items()})
        device = device_of(audio)
        loss = None if found.loss is None else torch.tensor(found.loss, device=device)
        return Seq2SeqLMOutput(loss=loss, logits=torch.tensor(found.logits, device=device))

    def can_generate(self) -> bool:
        """Return true: the pipeline asks."""
        return True

    def to(self, device: torch.device | str | int) -> "OnnxModelForSpeechSeq2Seq":
        """Return this model as it is, with a warning if its graphs run on another kind of device.

        The pipeline calls this with the first GPU that torch sees, unless it is given a device.
        """
        if torch.device(device).type != self.device.type:
            logger.warning(
                "The graphs run on %s, where they were loaded, and not on %s; choose the device when you load them: "
                "from_pretrained(bundle, device=...)",
                *(self.device, device),
            )
        return self

    def push_to_hub(
        self, save_directory: str | Path, repository_id: str, private: bool | None = None, token: str | None = None
    ) -> str:
        """Upload the bundle that `save_pretrained` wrote, in one commit, and return the commit's URL.

        Args:
            save_directory: Directory of the bundle.
            repository_id: Repository `owner/name`; created where it does not exist.
            private: If true, a new repository is private, and an existing public one is refused.
            token: Token with write access; None for that of `hf auth login`.

        Raises:
            BundleError: The bundle is damaged, huggingface-hub is missing, or the Hub refuses the upload.
        """
        return push_to_hub(save_directory, repository_id, private=private, token=token)

    def _save_pretrained(self, save_directory: str | Path) -> None:
        """Copy the bundle, engines included; what was there before stays if that fails."""
        manifest = Bundle.open(self._bundle).manifest
        engines = [path for engines in manifest.engines for path in engines.paths]
        with staged(Path(save_directory), overwrite=True) as staging:
            for name in (MANIFEST, *manifest.files, *engines):
                target = staging / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._bundle / name, target)

    def _save_config(self, save_directory: str | Path) -> None:
        """Leave config.json to `_save_pretrained`: the manifest has its hash."""

    def _check_window(self, given: dict[str, Any]) -> None:
        """Check that Whisper's features are those of one window: transformers goes from window to window by itself."""
        window = self.model.manifest.encoder.max_length
        features = given["inputs"] if given["inputs"] is not None else given.get(self.main_input_name)
        if self.config.model_type == "whisper" and isinstance(features, Tensor) and max(features.shape) > window:
            raise AudioError(
                f"{self.main_input_name} has {max(features.shape):,} frames, and Whisper's window has {window:,}; "
                "longer audio is not followed from window to window: give the pipeline chunk_length_s, or cut it"
            )
