"""Looking sessions up and revoking them in all stores."""
