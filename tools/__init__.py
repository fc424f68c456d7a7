"""Programs that make what is packaged beside the program: manual pages and shell completion."""
