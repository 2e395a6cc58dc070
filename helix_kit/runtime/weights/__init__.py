"""Model weights on disk: Hugging Face folders, GGUF conversion, the demo model, tiny random models."""
