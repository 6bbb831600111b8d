"""Models of our own whose forward reduces tokens: ViLT and METER, and what both share."""
