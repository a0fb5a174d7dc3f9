"""The cache of watched objects, as an informer's in client-go."""
