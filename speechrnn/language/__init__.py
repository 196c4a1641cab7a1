"""Language models: how probable a text is, whatever it sounds like."""
