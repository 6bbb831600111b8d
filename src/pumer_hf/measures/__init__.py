"""How well what a model keeps explains its answers, measured."""
