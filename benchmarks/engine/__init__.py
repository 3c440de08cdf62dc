"""Decoding and reading of prompts beside other engines on the same machine."""
