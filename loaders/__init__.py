"""Template/search pairs: the plan, the recipe, and the backends that turn both into batches."""

__all__: list[str] = []
