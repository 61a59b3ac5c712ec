"""Stages of extractive question answering: read, tokenize, window, train, infer, decode, score."""
