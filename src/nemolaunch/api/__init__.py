"""The public Python API, which `import nemolaunch` re-exports; the commands are its first users."""
