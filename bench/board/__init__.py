"""Results that people look at: a store of them, one page, and the layout that ML.ENERGY's tools read."""
