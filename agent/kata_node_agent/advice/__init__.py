"""What to set, from what was observed. Pure: figures in, advice with its reasons and the lines to write out."""
