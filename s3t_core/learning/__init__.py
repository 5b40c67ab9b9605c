"""Learning: blocks of a backbone, one stage at a time, and the ensemble. The only room that imports
torch."""
