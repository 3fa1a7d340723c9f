"""Other runtimes than the kit's: a form of a tree's model that they read, and running it in them."""
