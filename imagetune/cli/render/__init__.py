"""The layout of every command's output on the screen: lines, tables and progress."""
