"""The built-in data set: pictures of handwritten digits, with questions and statements about them."""
