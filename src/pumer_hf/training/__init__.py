"""The trainer for distillation, its arguments, losses and callbacks."""
