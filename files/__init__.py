"""File formats, downloads and the errors about them. Importing it loads neither TensorFlow nor Keras."""
