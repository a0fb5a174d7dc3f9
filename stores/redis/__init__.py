"""Sessions in Redis: their keys, their content, and the commands that read and delete them."""
