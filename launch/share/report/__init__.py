"""What is known of trees, for people: one HTML page, a terminal table, and the model card of a package."""
