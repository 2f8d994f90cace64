"""Llama 3.2 Vision in our own layers, as its makers compute it: pictures and text in, text out."""
