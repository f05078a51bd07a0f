"""What an answer must look like: schemas, grammars and tool calls become masks over the vocabulary."""
