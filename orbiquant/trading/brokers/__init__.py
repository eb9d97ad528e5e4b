"""Where orders go, behind one port."""
