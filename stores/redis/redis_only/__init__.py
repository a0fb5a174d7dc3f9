"""Redis as the only session store."""
