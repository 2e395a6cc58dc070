"""Model weights on disk: reading Hugging Face folders, GGUF conversion, the demo's model, tiny random models."""
