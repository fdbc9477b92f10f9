"""Downloads: text to train on, models and tokenizers."""
