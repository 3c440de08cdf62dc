"""A vocabulary that can chat: what a base without a chat format gets before it is tuned to instructions.

    llama-2    for vocabularies with BOS and EOS: Llama 2's marks, which are text, and a template that writes them
    steps      Code Llama 70B Instruct's: one special piece, `<step>`
    chatml     for all others: two special pieces, `<|im_start|>` and `<|im_end|>`, and a template

A template goes along with the exported vocabulary, so that other software chats as the model was taught. Steps has
none: transformers puts a space of its own behind every special piece of a SentencePiece vocabulary, so no template
gives the ids of Meta's code.
"""

from __future__ import annotations

from midspan.errors import InputError
from midspan.tokenizer.chat import STEP
from midspan.tokenizer.tokenizer import Tokenizer

CHATS = ("llama-2", "steps", "chatml")
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
CHAT_PIECES = (STEP, IM_START, IM_END)
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set turns = messages[1:] %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set turns = messages %}{% set system = '' %}{% endif %}"
    "{% for message in turns %}"
    "{% if message['role'] != ['user', 'assistant'][loop.index0 % 2] %}"
    "{{ raise_exception('user and assistant must alternate, and the first is the user') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + ((system if loop.first else '') + message['content']) | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)


def with_chat(tokenizer: Tokenizer, chat: str = "") -> Tokenizer:
    """A vocabulary with a chat format: its own where it has one and no other is asked for.

    Args:
        tokenizer: new pieces get ids behind its own, as with sentinels.
        chat: one of CHATS; if empty, what the vocabulary has, else `llama-2` where it has BOS and EOS, or
            `chatml`.

    Raises:
        InputError: Llama 2's format on a vocabulary without BOS or EOS, or `steps` on one without BOS.
    """
    has_bos, has_eos = tokenizer.bos_id is not None, tokenizer.eos_id is not None
    if not chat:
        if tokenizer.chat_template is not None or tokenizer.id_of(STEP) is not None:
            return tokenizer
        chat = "llama-2" if has_bos and has_eos else "chatml"
    if (chat == "llama-2" and not (has_bos and has_eos)) or (chat == "steps" and not has_bos):
        raise InputError(
            f"model.chat is {chat!r}, and the base's vocabulary has no {'EOS' if has_bos else 'BOS'}; use 'chatml'"
        )
    if chat == "llama-2":
        return tokenizer.with_chat_template(LLAMA_2_TEMPLATE)
    if chat == "steps":
        return tokenizer.with_sentinels([STEP])
    return tokenizer.with_sentinels([IM_START, IM_END]).with_chat_template(CHATML_TEMPLATE)
