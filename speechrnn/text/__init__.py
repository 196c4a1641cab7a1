"""Transcripts: normalisation, tokens, error rates."""
