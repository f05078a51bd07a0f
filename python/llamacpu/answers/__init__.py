"""From a question to an answer in the shapes of the OpenAI API."""
