"""The small endpoints: models, health, tokenising, administration."""
