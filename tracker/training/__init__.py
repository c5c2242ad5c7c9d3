"""What a training run needs around a model: step, schedule, checkpoint, log."""

__all__: list[str] = []
