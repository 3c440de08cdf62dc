"""Text to ids and back, over SentencePiece, tokenizer.json and GGUF; text never gives a special id."""

from midspan.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
