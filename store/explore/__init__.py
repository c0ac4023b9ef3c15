"""Every schedule of the workflows: their real functions, over every order of steps, notices and crashes."""
