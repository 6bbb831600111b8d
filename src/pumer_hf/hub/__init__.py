"""Model cards, and pushing models to the Hugging Face Hub."""
