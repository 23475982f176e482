"""The models that come with the package, each with its data: `movielens`, `criteo`."""
