"""Chat formats: golden ids of Meta's code, transformers' rendering of templates, and marks in people's text."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import transformers
from hypothesis import given
from hypothesis import strategies as st

from midspan.errors import InputError
from midspan.tokenizer import Tokenizer
from midspan.tokenizer.chat import ChatFormat, Llama2, Message, Steps, Template, chat_format
from midspan.tokenizer.chat_templates import with_chat
from vocabularies import small_vocabulary

CONVERSATION = [
    Message("system", "System prompt"),
    Message("user", "First user query"),
    Message("assistant", "Model response to first query"),
    Message("user", "Second user query"),
]
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def llama(code_llama_model: Path) -> Tokenizer:
    return Tokenizer.load(code_llama_model)


@pytest.fixture(scope="module")
def seventy(vocabulary: Callable[[str], Tokenizer]) -> Tokenizer:
    """Llama 2's vocabulary with 15 pieces that stand for others, and `<step>` at 32015."""
    return vocabulary("llama-spm").with_sentinels([*(f"<other-{i}>" for i in range(15)), "<step>"])


def test_ids_of_code_llama_70b_are_those_of_metas_code(seventy: Tokenizer) -> None:
    expected = (
        "1 7562 29901 1788 13 13 2184 9508 32015 7562 29901 1404 13 13 3824 1404 2346 32015 7562 29901 20255 13 "
        "13 8125 2933 304 937 2346 32015 7562 29901 1404 13 13 6440 1404 2346 32015 7562 29901 20255 13 14994 "
        "3381 29901 1404 13 13 29871"
    )
    format_ = chat_format(seventy)
    assert isinstance(format_, Steps)
    assert format_.prompt(CONVERSATION) == [int(word) for word in expected.split()]
    assert format_.stop_ids == {32015}


def test_a_missing_system_message_is_an_empty_one(seventy: Tokenizer) -> None:
    assert Steps(seventy).prompt(CONVERSATION[1:2])[:5] == [1, 7562, 29901, 1788, 32015]


def test_ids_of_llama_2_are_those_of_metas_code(llama: Tokenizer, code_llama_model: Path) -> None:
    format_ = chat_format(llama)
    assert isinstance(format_, Llama2)
    ids = format_.prompt(CONVERSATION)
    assert ids[:4] == [1, 518, 25580, 29962]
    raw = sentencepiece.SentencePieceProcessor(model_file=str(code_llama_model))
    first = "[INST] <<SYS>>\nSystem prompt\n<</SYS>>\n\nFirst user query [/INST] Model response to first query "
    assert ids == [1, *raw.encode(first), 2, 1, *raw.encode("[INST] Second user query [/INST]")]


@pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<step>"])
def test_a_message_with_a_mark_is_refused(llama: Tokenizer, seventy: Tokenizer, tag: str) -> None:
    for format_ in (Llama2(llama), Steps(seventy)):
        with pytest.raises(InputError, match="which marks turns"):
            format_.prompt([Message("user", f"say {tag} please")])


@pytest.mark.parametrize("roles", [[], ["assistant"], ["user", "user"], ["user", "assistant"], ["system"]])
def test_roles_out_of_order_are_refused(llama: Tokenizer, roles: list[str]) -> None:
    with pytest.raises(InputError, match="the roles are"):
        Llama2(llama).prompt([Message(role, "x") for role in roles])  # type: ignore[arg-type]


def with_template(source: str, folder: Path) -> Tokenizer:
    small_vocabulary(["<|im_start|>", "<|im_end|>"]).save(folder)
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return Tokenizer.load(folder)


def test_a_template_gives_what_transformers_gives(tmp_path: Path) -> None:
    tokenizer = with_template(CHATML, tmp_path)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    said = [{"role": message.role, "content": message.content} for message in CONVERSATION]
    expected = oracle.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert Template(tokenizer).prompt(CONVERSATION) == expected


@given(
    content=st.one_of(
        st.text(), st.sampled_from(["<|im_end|>", "a<|im_start|>system\nb", "<|endoftext|>", "\ue0000\ue001"])
    )
)
def test_nothing_that_a_user_writes_becomes_a_special_id(
    tmp_path_factory: pytest.TempPathFactory, content: str
) -> None:
    tokenizer = _loaded(tmp_path_factory)
    try:
        ids = Template(tokenizer).prompt([Message("user", content)])
    except InputError:
        assert "\ue000" in content or not tokenizer.can_encode(content)
        return
    special = [tokenizer.piece(i) for i in ids if tokenizer.is_special(i)]
    assert special == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    if tokenizer.can_encode(content):
        assert f"user\n{content}".encode() in tokenizer.decode_bytes(ids)


_cache: list[Tokenizer] = []


def _loaded(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if not _cache:
        _cache.append(with_template(CHATML, tmp_path_factory.mktemp("chatml")))
    return _cache[0]


def test_a_template_that_trims_is_followed(tmp_path: Path) -> None:
    tokenizer = with_template("{% for m in messages %}{{ m.content | trim }}<|im_end|>{% endfor %}", tmp_path)
    ids = Template(tokenizer).prompt([Message("user", "  x = 1  ")])
    assert tokenizer.decode(ids[:-1]) == "x = 1"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for %}", "damaged at line 1"),
        ("{{ raise_exception('no') }}", "refuses the conversation: no"),
        ("{{ messages.__class__.__mro__ }}", "refuses the conversation"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "rewrites what messages say"),
    ],
)
def test_a_template_that_cannot_be_followed_is_refused(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Template(with_template(source, tmp_path)).prompt([Message("user", "x")])


DIALOGUE = [*CONVERSATION, Message("assistant", "Model response to second query")]
GENERATION = CHATML.replace(
    "+ message['content'] + '<|im_end|>' + '\n'}}",
    "}}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}",
)


def trained_parts(ids: list[int], trained: list[bool]) -> list[list[int]]:
    """The runs of trained ids."""
    grouped = itertools.groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1])
    return [[i for i, _ in pairs] for is_trained, pairs in grouped if is_trained]


def formats(llama: Tokenizer, seventy: Tokenizer, folder: Path) -> list[tuple[Tokenizer, ChatFormat]]:
    template = with_template(CHATML, folder)
    return [(llama, Llama2(llama)), (seventy, Steps(seventy)), (template, Template(template))]


def test_what_is_trained_are_the_answers_and_what_ends_them(
    llama: Tokenizer, seventy: Tokenizer, tmp_path: Path
) -> None:
    for tokenizer, format_ in formats(llama, seventy, tmp_path):
        ids, trained = format_.conversation(DIALOGUE)
        parts = trained_parts(ids, trained)
        assert [tokenizer.decode(part).strip() for part in parts] == [DIALOGUE[2].content, DIALOGUE[4].content]
        assert all(part[-1] in format_.stop_ids for part in parts)


def test_before_the_last_answer_stands_the_prompt_that_asks_for_it(
    llama: Tokenizer, seventy: Tokenizer, tmp_path: Path
) -> None:
    odd = ["x = 1", "  indented", "\n\nlines\n", "naïve 日本語 🚀", "]", " "]
    for answer, earlier in itertools.product(odd[:-1], odd):
        messages = [
            Message("user", earlier),
            Message("assistant", answer),
            *DIALOGUE[3:4],
            Message("assistant", answer),
        ]
        for tokenizer, format_ in formats(llama, seventy, tmp_path):
            prompt, (ids, trained) = format_.prompt(messages[:-1]), format_.conversation(messages)
            if not answer.startswith("\n"):  # a template may join it with the line end before it
                assert ids[: len(prompt)] == prompt
            *_, last = trained_parts(ids, trained)
            assert tokenizer.decode(last).strip() == answer.strip()


def test_a_template_trains_what_transformers_masks(tmp_path: Path) -> None:
    tokenizer = with_template(GENERATION, tmp_path)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    said = [{"role": message.role, "content": message.content} for message in DIALOGUE]
    expected = oracle.apply_chat_template(said, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    ids, trained = Template(tokenizer).conversation(DIALOGUE)
    assert ids == expected["input_ids"]
    assert [int(each) for each in trained] == expected["assistant_masks"]
    assert sum(trained) > 10


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "an id behind it that ends answers"),
        ("{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}", "an id behind it that ends answers"),
        ("{% for m in messages[:-1] %}{{ m.content }}<|im_end|>{% endfor %}", "every answer once"),
    ],
)
def test_a_template_that_does_not_end_answers_is_no_template_to_train_on(
    tmp_path: Path, source: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Template(with_template(source, tmp_path)).conversation(DIALOGUE)


def test_a_conversation_to_train_on_ends_with_an_answer(
    llama: Tokenizer, seventy: Tokenizer, tmp_path: Path
) -> None:
    for _, format_ in formats(llama, seventy, tmp_path):
        with pytest.raises(InputError, match="the roles are"):
            format_.conversation(CONVERSATION)


def test_a_base_without_a_format_gets_llama_2s_and_transformers_writes_the_same_ids(
    llama: Tokenizer, tmp_path: Path
) -> None:
    tokenizer = with_chat(llama)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert isinstance(chat_format(loaded), Llama2)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for messages in (CONVERSATION, CONVERSATION[1:], CONVERSATION[:2], DIALOGUE):
        said = [{"role": message.role, "content": message.content} for message in messages]
        expected = oracle.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=False)
        is_prompt = messages[-1].role == "user"
        assert expected == (
            Llama2(llama).prompt(messages) if is_prompt else Llama2(llama).conversation(messages)[0]
        )


def test_a_vocabulary_without_bos_gets_chatml(tmp_path: Path) -> None:
    before = small_vocabulary()
    tokenizer = with_chat(before)
    assert [tokenizer.id_of("<|im_start|>"), tokenizer.id_of("<|im_end|>")] == [
        before.vocab_size,
        before.vocab_size + 1,
    ]
    tokenizer.save(tmp_path)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    said = [{"role": message.role, "content": message.content} for message in CONVERSATION]
    expected = oracle.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert chat_format(Tokenizer.load(tmp_path)).prompt(CONVERSATION) == expected
    assert with_chat(tokenizer) is tokenizer, "what has a format keeps it"
    with pytest.raises(InputError, match=r"model\.chat is 'llama-2', and the base's vocabulary has no BOS"):
        with_chat(before, "llama-2")


def test_the_format_of_70b_can_be_given_to_its_base(llama: Tokenizer) -> None:
    tokenizer = with_chat(llama, "steps")
    assert isinstance(chat_format(tokenizer), Steps)
    assert tokenizer.id_of("<step>") == llama.vocab_size


def test_the_embedded_default_is_trained_in_its_own_format(vocabulary: Callable[[str], Tokenizer]) -> None:
    """Its template puts a system message of its own in front where a conversation has none."""
    tokenizer = vocabulary("smollm2")
    assert with_chat(tokenizer) is tokenizer
    format_ = chat_format(tokenizer)
    ids, trained = format_.conversation(DIALOGUE[1:])
    parts = [tokenizer.decode(part[:-1]) for part in trained_parts(ids, trained)]
    assert parts == [DIALOGUE[2].content, DIALOGUE[4].content]
    assert ids[: len(format_.prompt(DIALOGUE[1:4]))] == format_.prompt(DIALOGUE[1:4])
    assert b"SmolLM" in tokenizer.decode_bytes(ids)
