"""The small question-answering sample, its vocabulary and the dense model's configuration."""
