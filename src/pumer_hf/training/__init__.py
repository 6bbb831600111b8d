"""Training by distillation, and the parts that recipes are made of."""
