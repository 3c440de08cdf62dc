"""A language server: suggestions, docstrings and types for any editor that speaks LSP 3.18, or an older one.

    suggest.py    where suggestions come from: an engine in this process, or a running `midspan serve`
    document.py   an editor's file as a session sees it
    server.py     requests and notifications

Needs `pip install "midspan[serve]"`.
"""
