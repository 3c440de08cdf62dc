"""What a stage reads: the corpora and conversations that its recipe names, opened."""

from __future__ import annotations

from midspan.corpus import Corpus
from midspan.rows import Conversations, Source
from midspan.train.recipe import DataRecipe


def open_sources(data: DataRecipe) -> list[Source]:
    """The sources of a recipe in its order.

    Raises:
        InputError: a corpus or a file of conversations is not there, or cannot be used.
    """
    return [
        Source(
            corpus=Conversations.open(source.conversations)
            if source.conversations
            else Corpus.open(source.corpus),
            name=source.name,
            share=source.share,
            fim_rate=source.fim_rate,
            documents=source.documents,
        )
        for source in data.mixture
    ]
