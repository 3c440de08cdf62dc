"""Training a small Llama on a CPU: Midspan beside transformers, its Trainer and TRL."""
