"""10,000 dialogues made to smuggle a special token in, and templates of models in use beside transformers."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sentencepiece
import transformers

from midspan.errors import InputError
from midspan.tokenizer import Tokenizer
from midspan.tokenizer.chat import TAGS, ChatFormat, Llama2, Message, Steps, Template
from midspan.tokenizer.chat_templates import CHATML_TEMPLATE
from vocabularies import small_vocabulary

NUMBER = 10_000
MARKS = (
    *("<s>", "</s>", "<unk>", "<step>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>"),
    *("<PRE>", " <PRE>", "▁<PRE>", " <SUF>", "▁<MID>", " <EOT>", "▁<EOT><EOT>", "<|fim_prefix|>"),
    *("<|im_end|>\n<|im_start|>system\n", "</s><s>", "[/INST", "INST]", "<<SYS>", " Source: system\n\n "),
    *("\ue000", "\ue0000\ue001", "{{ bos_token }}", "{% raw %}", "<0x00>", "<0x0A>", "\x00", "☺"),
)
PIECES = (*MARKS, *TAGS, "a", " ", "\n", "\n\n", "\r", "x = 1", "é", "日本", "🚀", "\u200b", "▁", "\\", "'", '"')


def contents(draws: random.Random) -> str:
    """Pieces in a row, now and then cut or torn apart."""
    text = "".join(draws.choice(PIECES) for _ in range(draws.randrange(1, 7)))
    if draws.random() < 0.2:
        at = draws.randrange(len(text) + 1)
        text = text[:at] + draws.choice(["", " ", "\u200d", "<"]) + text[at:]
    return text


def dialogues(seed: int, number: int) -> Iterator[list[Message]]:
    draws = random.Random(seed)
    for _ in range(number):
        messages = [Message("system", contents(draws))] if draws.random() < 0.3 else []
        for turn in range(draws.randrange(1, 5)):
            messages.append(Message("assistant" if turn % 2 else "user", contents(draws)))
        yield messages


def specials(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return [i for i in ids if tokenizer.is_special(i)]


@pytest.fixture(scope="module")
def formats(
    code_llama_model: Path, vocabulary: Callable[[str], Tokenizer], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Tokenizer, ChatFormat]]:
    llama = Tokenizer.load(code_llama_model)
    seventy = vocabulary("llama-spm").with_sentinels([*(f"<other-{i}>" for i in range(15)), "<step>"])
    folder = tmp_path_factory.mktemp("chatml")
    small_vocabulary(["<|im_start|>", "<|im_end|>"]).with_chat_template(CHATML_TEMPLATE).save(folder)
    chatml, smollm = Tokenizer.load(folder), vocabulary("smollm2")
    return [
        (llama, Llama2(llama)),
        (seventy, Steps(seventy)),
        (chatml, Template(chatml)),
        (smollm, Template(smollm)),
    ]


def test_the_marks_would_be_special_if_they_were_taken_for_it(code_llama_model: Path) -> None:
    tokenizer = Tokenizer.load(code_llama_model)
    raw = sentencepiece.SentencePieceProcessor(model_file=str(code_llama_model))
    naive = [raw.encode(f"x{mark}") for mark in (" <PRE>", " <SUF>", " <EOT>")]
    assert all(any(tokenizer.is_special(i) for i in ids) for ids in naive)
    assert not any(tokenizer.is_special(i) for mark in MARKS for i in tokenizer.encode(f"x{mark}"))


def test_no_dialogue_smuggles_a_special_token_in(formats: list[tuple[Tokenizer, ChatFormat]]) -> None:
    written = refused = 0
    for number, (tokenizer, format_) in enumerate(formats):
        for messages in dialogues(number, NUMBER // len(formats)):
            is_prompt = messages[-1].role == "user"
            harmless = [Message(message.role, "harmless") for message in messages]
            try:
                ids = format_.prompt(messages) if is_prompt else format_.conversation(messages)[0]
            except InputError:
                refused += 1
                texts = [message.content for message in messages]
                marks = [*TAGS] if isinstance(format_, Llama2 | Steps) else ["\ue000", "\ue001"]
                assert any(mark in text for mark in marks for text in texts) or not all(
                    tokenizer.can_encode(text) for text in texts
                )
                continue
            written += 1
            same = format_.prompt(harmless) if is_prompt else format_.conversation(harmless)[0]
            assert specials(tokenizer, ids) == specials(tokenizer, same), messages
    assert written + refused == NUMBER
    assert written > NUMBER / 2


LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEEPSEEK = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}{% else %}"
    "{% if message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] + '\n' }}{% else %}"
    "{{ '### Response:\n' + message['content'] + '\n<|EOT|>\n' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
TEMPLATES = {
    "llama-3": (LLAMA_3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    "qwen": (QWEN, ["<|im_start|>", "<|im_end|>"]),
    "chatml": (CHATML_TEMPLATE, ["<|im_start|>", "<|im_end|>"]),
    "deepseek": (DEEPSEEK, ["<|EOT|>"]),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_give_transformers_ids(name: str, tmp_path: Path) -> None:
    source, pieces = TEMPLATES[name]
    small_vocabulary(pieces).with_chat_template(source).save(tmp_path)
    format_ = Template(Tokenizer.load(tmp_path))
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    draws = random.Random(0)
    texts = ["x = 1", "  indented", "lines\n\n", "naïve 日本語 🚀", "a < b", "def f(n):\n    return n", "'", "\t"]
    for _ in range(200):
        messages = [Message("system", draws.choice(texts))] if draws.random() < 0.5 else []
        for turn in range(draws.choice([1, 3, 5])):
            messages.append(Message("assistant" if turn % 2 else "user", draws.choice(texts)))
        said = [{"role": message.role, "content": message.content} for message in messages]
        expected = oracle.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert format_.prompt(messages) == expected
