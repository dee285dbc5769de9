"""The Blocks Network: joining it, staying joined, and speaking its wire protocol."""
