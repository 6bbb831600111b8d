"""The models of pumer_hf: encoders with our own classes, and what all models share."""
