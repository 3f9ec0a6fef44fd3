"""From text to token ids and back, for one model folder: tokenizer, chat template, detokeniser, stop strings."""
