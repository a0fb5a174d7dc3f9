"""R2.8: makes Redis agree with the database."""
