"""The rules of this project's own runtime."""
