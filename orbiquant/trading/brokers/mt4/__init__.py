"""MetaTrader 4, reached through the files of the DWX Connect expert advisor."""
