"""Midspan: make your own code model by the Code Llama recipe, measure it, and use it in an editor."""

__version__ = "0.1.0"
