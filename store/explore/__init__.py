"""Every schedule of the workflows: their real functions, run over every order of steps, notices and crashes."""
