"""How the bundled demo model is made: text generator, tokenizer, training loop and checks."""
