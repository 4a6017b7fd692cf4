"""Two ways of making pictures, judged by people who do not know which is which."""
