"""Megatron-Bridge: configuration, entry point and callbacks. The only room that imports `megatron.bridge`."""
