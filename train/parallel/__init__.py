"""Everything that talks to other processes: joining them, sums over them, weights cut up among them."""
