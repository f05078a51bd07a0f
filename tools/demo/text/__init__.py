"""The text of the demo model's small world: what people may ask, what the model answers, and short stories."""
