"""A folder of static files that transcribes in a web browser, without a server of its own."""
