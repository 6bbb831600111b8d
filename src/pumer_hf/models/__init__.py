"""The models of pumer_hf: encoders with classes of their own, and what every model shares."""
