"""Model families with token reduction."""
