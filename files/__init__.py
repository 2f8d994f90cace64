"""File formats and what a file can be wrong about; knows neither TensorFlow nor Keras, nor anything of the packages."""
