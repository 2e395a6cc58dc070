"""No field of transformers' classes changes a layer in silence: it is read, or the config is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
from small_decoders import KINDS, counted_layers, fewest_fields, windows_of

from helix_kit.errors import InputError
from helix_kit.hf_config import read_sizes

# Fields that no layer depends on, or that name other parts of the model.
ASIDE = {"vocab_size", "num_hidden_layers", "initializer_range", "pretraining_tp", "summary_use_proj", "use_cache"}


def changed_fields(kind):
    """Each field of the family's own class that is a switch or a number, with another value."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    fields = fewest_fields(kind, layers=2)
    for field in dataclasses.fields(CONFIG_MAPPING[kind]):
        if field.name in common | ASIDE or field.name.endswith("_token_id"):
            continue
        value = fields.get(field.name, field.default)
        if isinstance(value, bool):
            yield field.name, not value
        elif isinstance(value, int) and value > 0:
            yield field.name, 2 * value
        elif value is None and "bool" in str(field.type):
            yield field.name, True


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_field_is_read_as_transformers_reads_it_or_refused(kind):
    from transformers import AutoConfig

    for name, value in changed_fields(kind):
        fields = fewest_fields(kind, layers=2) | {name: value}
        try:
            config = AutoConfig.for_model(kind, **fields)
            expected = counted_layers(config)
        except Exception:
            continue
        try:
            found = read_sizes(json.loads(json.dumps(config.to_dict(), default=str)), "config.json")
        except InputError as error:
            assert name in str(error), (name, str(error))
            continue
        if "layer_kinds" not in found:
            assert round(found["layer_gb"] * 1e9 / found["dtype_bytes"]) == expected[0] == expected[1], name
            continue
        kinds, pattern = found["layer_kinds"], found["layer_pattern"] or (0, 0)
        assert [kinds[index].all_params for index in pattern] == expected, name
        types = [kinds[index].attention for index in pattern]
        assert types == windows_of(config) or "latent" in types, name


def other_decoders():
    """Decoders of transformers that are not described, by model_type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(KINDS))


def test_every_other_decoder_of_transformers_is_refused_by_a_field():
    """As its class writes it. Of multimodal models the decoder may be described."""
    from transformers import CONFIG_MAPPING

    seen = 0
    for kind in other_decoders():
        try:
            config = json.loads(json.dumps(CONFIG_MAPPING[kind]().to_dict(), default=str))
        except Exception:
            continue  # it has no defaults
        if {config["model_type"], (config.get("text_config") or {}).get("model_type")} & set(KINDS):
            continue
        seen += 1
        with pytest.raises(InputError, match=r"config\.json") as caught:
            read_sizes(config, "config.json")
        assert caught.value.field or "missing field" in str(caught.value), (kind, str(caught.value))
    assert seen > 60
