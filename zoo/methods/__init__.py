"""Methods, one file each; `zoo.registry` imports a file when its method is first asked for."""
