"""Containers of docker, podman and apptainer: the command line that starts one, and what it mounts, from one plan."""
