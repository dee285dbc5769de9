"""The page in the browser: what is measured, what is driven and by whom, and the emergency stop."""
