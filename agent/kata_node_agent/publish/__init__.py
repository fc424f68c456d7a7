"""What others read of us. Nothing here decides: it says what was decided elsewhere, in the words of the reader."""
